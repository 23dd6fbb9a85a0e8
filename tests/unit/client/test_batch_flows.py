"""Batches without a network: what a wait and a stream of results do when things break."""

import json
from typing import Any

import pytest

from tests.unit.client.script import LOST, REFUSED, STREAM, Script, no, ok
from vidmill.client import ApiError, BatchUnfinished, ClipRequest, Row, ServerUnreachable
from vidmill.client._batch_flows import BatchesFlows


def flows(script: Script) -> BatchesFlows:
    return BatchesFlows(script.flows())


def batch(state: str, **counts: int) -> dict[str, Any]:
    return {"batch_id": "bat_1", "state": state, "counts": counts}


def line(number: int) -> bytes:
    return json.dumps({"line": number, "status": "completed"}).encode() + b"\n"


def test_a_wait_reports_each_change_once_and_looks_more_rarely() -> None:
    same = batch("processing", completed=1)
    script = Script([*[ok(same)] * 6, ok(batch("completed", completed=2))])
    done = script.run(flows(script).wait("bat_1", None))
    assert [news.counts.completed for news in script.reported] == [1, 2]
    assert done.is_over
    assert script.slept == [1.0, 1.5, 2.25, 3.375, 5.0, 5.0]


def test_a_wait_outlives_a_restart_but_not_a_server_that_was_never_there() -> None:
    script = Script([ok(batch("processing")), *[REFUSED] * 12, ok(batch("cancelled"))])
    assert script.run(flows(script).wait("bat_1", None)).state == "cancelled"
    never = Script([REFUSED] * 4)
    with pytest.raises(ServerUnreachable):
        never.run(flows(never).wait("bat_1", None))


def test_a_wait_ends_in_time_and_names_the_batch() -> None:
    script = Script([ok(batch("processing"))] * 3)
    with pytest.raises(BatchUnfinished, match="bat_1") as caught:
        script.run(flows(script).wait("bat_1", 2.0))
    assert (script.now, caught.value.batch.state) == (2.0, "processing")


def test_results_are_told_once_over_dropped_connections() -> None:
    first = [STREAM, line(1), line(3)[:9], LOST]
    second = [STREAM, line(1) + line(2), line(3)]  # row 2 ended meanwhile
    script = Script([first, [no(503)], second])
    script.run(flows(script).results("bat_1"))
    assert [result.line for result in script.reported] == [1, 2, 3]


def test_results_of_no_batch_are_an_error() -> None:
    script = Script([[no(404)]])
    with pytest.raises(ApiError):
        script.run(flows(script).results("bat_1"))


def test_rows_may_be_clips_or_fields_and_keep_their_own_names() -> None:
    script = Script([ok(batch("checked"))])
    rows: list[Row] = [ClipRequest(prompt="a", duration_s=3), {"prompt": "b", "custom_id": "2"}]
    script.run(flows(script).create(rows, {"name": "n", "priority": None}, confirm=False))
    (asked,) = script.asked
    assert asked.body == {
        "items": [
            {"prompt": "a", "resolution": "720p", "duration": 3.0},
            {"prompt": "b", "custom_id": "2"},
        ],
        "name": "n",
    }
    assert asked.query == {}
    assert asked.headers["Idempotency-Key"]
