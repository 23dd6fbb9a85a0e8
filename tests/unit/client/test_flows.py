"""The decisions of the SDK, driven by hand: no network, no clock, no sleeping."""

import hashlib
import json
from typing import Any

import pytest

from tests.unit.client.script import LOST, REFUSED, STREAM, Script, event, no, ok, task
from vidmill.client import (
    ApiError,
    ClipRequest,
    ConnectionLost,
    DownloadDamaged,
    NotFinished,
    NotFound,
    Patience,
    RateLimited,
    ServerError,
    ServerUnreachable,
    Task,
    TaskCancelled,
    TaskFailed,
    Timeout,
)
from vidmill.client._actions import Reply
from vidmill.client._sinks import MemorySink

CLIP = ClipRequest(prompt="a red ball", duration_s=3)
RUNNING = Task(task_id="t2v_1", status="processing")


class TestSubmit:
    def test_sends_an_idempotency_key_that_stays_the_same_over_retries(self) -> None:
        script = Script([REFUSED, no(503), ok(task())])
        assert script.run(script.flows().submit(CLIP)).task_id == "t2v_1"
        keys = {request.headers["Idempotency-Key"] for request in script.asked}
        assert (len(keys), len(script.asked)) == (1, 3)

    @pytest.mark.parametrize("trouble", [LOST, no(502), no(504)])
    def test_is_sent_again_under_the_same_key_when_the_answer_was_lost(
        self, trouble: object
    ) -> None:
        script = Script([trouble, trouble, ok(task())])
        assert script.run(script.flows().submit(CLIP)).task_id == "t2v_1"
        keys = [request.headers["Idempotency-Key"] for request in script.asked]
        assert keys == [keys[0]] * 3

    def test_waits_while_its_first_sending_is_under_way(self) -> None:
        busy = Reply(
            status=409,
            headers={"retry-after": "1"},
            body=b'{"code": "idempotency_in_progress"}',
        )
        script = Script([LOST, busy, ok(task())])
        script.run(script.flows().submit(CLIP))
        assert script.slept == [0.25, 1.0]

    def test_waits_longer_for_a_server_that_was_there(self) -> None:
        script = Script([LOST, *[REFUSED] * 5, ok(task())])
        script.run(script.flows(patience=Patience(unreachable_s=2)).submit(CLIP))
        assert script.now > 2

    def test_is_not_repeated_after_a_failure_of_the_server(self) -> None:
        script = Script([no(500)])
        with pytest.raises(ApiError):
            script.run(script.flows().submit(CLIP))
        assert len(script.asked) == 1

    def test_each_submit_has_a_key_of_its_own(self) -> None:
        first, second = Script([ok(task())]), Script([ok(task())])
        for script in (first, second):
            script.run(script.flows().submit(CLIP))
        keys = [script.asked[0].headers["Idempotency-Key"] for script in (first, second)]
        assert keys[0] != keys[1]

    def test_waits_as_long_as_the_server_asks(self) -> None:
        script = Script([no(429, retry_after="7"), ok(task())])
        script.run(script.flows().submit(CLIP))
        assert script.slept == [7.0]

    def test_gives_up_when_patience_ends(self) -> None:
        script = Script([no(429, retry_after="40"), no(429, retry_after="40")])
        with pytest.raises(RateLimited):
            script.run(script.flows(patience=Patience(busy_s=60)).submit(CLIP))
        assert script.slept == [40.0]

    def test_does_not_wait_for_a_plan_that_is_too_small(self) -> None:
        spent = Reply(status=429, headers={}, body=b'{"code": "quota_exceeded"}')
        script = Script([spent])
        with pytest.raises(RateLimited):
            script.run(script.flows().submit(CLIP))
        assert script.slept == []

    def test_asks_a_language_model_that_gave_no_prompt_once_more_and_not_for_a_minute(self) -> None:
        script = Script([no(503, code="enhancer_unavailable", retry_after="5")] * 2)
        with pytest.raises(ServerError):
            script.run(script.flows().submit(CLIP))
        assert script.slept == [5.0]

    def test_gives_up_soon_when_there_is_no_server(self) -> None:
        script = Script([REFUSED] * 4)
        with pytest.raises(ServerUnreachable):
            script.run(script.flows(patience=Patience(unreachable_s=2)).submit(CLIP))
        assert script.slept == [0.25, 0.5, 1.0]

    def test_says_only_what_differs_from_the_defaults(self) -> None:
        script = Script([ok(task())])
        script.run(script.flows().submit(CLIP))
        assert script.asked[0].body == {
            "prompt": "a red ball",
            "duration": 3.0,
            "resolution": "720p",
        }


class TestReading:
    @pytest.mark.parametrize("trouble", [REFUSED, LOST, no(502), no(503), no(504), no(429)])
    def test_is_repeated_after_a_passing_trouble(self, trouble: object) -> None:
        script = Script([trouble, ok(task("processing"))])
        assert script.run(script.flows().status("t2v_1")).status == "processing"

    def test_is_not_repeated_after_a_refusal(self) -> None:
        script = Script([no(404)])
        with pytest.raises(ApiError):
            script.run(script.flows().status("t2v_1"))

    def test_fields_of_a_newer_server_do_no_harm(self) -> None:
        script = Script([ok(task("processing", phase="dreaming", mood={"a": 1}))])
        found = script.run(script.flows().status("t2v_1"))
        assert (found.phase, found.model_dump()["mood"]) == ("dreaming", {"a": 1})

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            ("queued", NotFinished),
            ("processing", NotFinished),
            ("failed", TaskFailed),
            ("cancelled", TaskCancelled),
        ],
    )
    def test_result_of_an_unfinished_task_is_an_error(
        self, status: str, error: type[Exception]
    ) -> None:
        script = Script([ok(task(status))])
        with pytest.raises(error, match="t2v_1"):
            script.run(script.flows().finished_task("t2v_1"))


class TestWaiting:
    def test_follows_the_stream_and_then_reads_the_result(self) -> None:
        events = [event(1, task("processing", progress=0.5)), event(2, task("completed"))]
        done = task("completed", result={"sha256": "ab"})
        script = Script([[STREAM, *events], ok(done)])
        found = script.run(script.flows().wait(RUNNING, timeout_s=None))
        assert found.result is not None
        assert [t.status for t in script.reported] == ["processing", "processing", "completed"]

    def test_resumes_after_the_last_event_heard(self) -> None:
        script = Script(
            [
                [STREAM, event(4, task("processing", progress=0.2)), LOST],
                ok(task("processing", progress=0.4)),
                [STREAM, event(9, task("completed", result={}))],
            ]
        )
        script.run(script.flows().wait(RUNNING, timeout_s=None))
        assert "Last-Event-ID" not in script.asked[0].headers
        assert script.asked[2].headers["Last-Event-ID"] == "1.4"
        assert [t.progress for t in script.reported] == [0.0, 0.2, 0.4, 0.4]

    def test_asks_for_the_place_in_the_queue_at_the_pace_the_server_wants(self) -> None:
        slow = Reply(
            status=200,
            headers={"retry-after": "4"},
            body=json.dumps(task("queued", queue_position=1)).encode(),
        )
        events = [event(1, task("completed"))]
        script = Script([slow, ok(task("processing")), [STREAM, *events], ok(task("completed"))])
        script.run(script.flows(poll_s=1).wait(Task(**task()), timeout_s=None))
        assert script.slept == [1, 4]
        assert [t.queue_position for t in script.reported] == [None, 1, 1, 1]

    def test_follows_the_stream_at_once_when_it_is_next(self) -> None:
        events = [event(1, task("processing", progress=0.5)), event(2, task("completed"))]
        script = Script([[STREAM, *events], ok(task("completed", result={}))])
        script.run(script.flows().wait(Task(**task(queue_position=0)), timeout_s=None))
        assert script.slept == []
        assert [t.progress for t in script.reported] == [0.0, 0.5, 0.5]

    def test_polls_where_there_is_no_stream(self) -> None:
        script = Script([[no(404)], ok(task("processing")), ok(task("completed", result={}))])
        script.run(script.flows(poll_s=3).wait(RUNNING, timeout_s=None))
        assert script.slept == [3, 3]

    def test_asks_the_row_when_the_stream_says_that_nothing_will_come(self) -> None:
        script = Script([[Reply(status=204, headers={})], ok(task("completed", result={}))])
        script.run(script.flows().wait(RUNNING, timeout_s=None))

    def test_outlives_a_restart_of_the_server(self) -> None:
        outage: list[Any] = [[STREAM, LOST], *[REFUSED] * 12, no(503)]
        script = Script([*outage, ok(task("completed", result={}))])
        script.run(script.flows().wait(RUNNING, timeout_s=None))
        assert script.now > 30

    def test_does_not_wait_for_ever_for_a_dead_server(self) -> None:
        script = Script([[STREAM, LOST], *[REFUSED] * 8])
        with pytest.raises(ServerUnreachable):
            script.run(script.flows(patience=Patience(outage_s=20)).wait(RUNNING, timeout_s=None))

    def test_times_out_in_time_and_names_the_task(self) -> None:
        script = Script([ok(task("processing"))] * 5)
        with pytest.raises(Timeout, match="t2v_1") as caught:
            script.run(script.flows(poll_s=1).wait(RUNNING, timeout_s=4.5))
        assert (script.now, caught.value.task.status) == (4.5, "processing")

    def test_times_out_in_time_during_an_outage_too(self) -> None:
        script = Script([ok(task("processing")), *[REFUSED] * 4])
        with pytest.raises(Timeout):
            script.run(script.flows(poll_s=1).wait(RUNNING, timeout_s=4.5))
        assert script.now <= 4.5

    def test_does_not_sleep_in_a_stream_when_the_deadline_is_near(self) -> None:
        script = Script([ok(task("completed", result={}))])
        script.run(script.flows().wait(RUNNING, timeout_s=10))
        assert [request.path for request in script.asked] == ["/v1/t2v/status"]

    @pytest.mark.parametrize(
        ("status", "kind"), [("failed", TaskFailed), ("cancelled", TaskCancelled)]
    )
    def test_bad_end_carries_the_task(self, status: str, kind: type[Exception]) -> None:
        doc = task(status, error={"code": "bad_output", "message": "all NaN"})
        script = Script([[STREAM, event(1, doc)]])
        with pytest.raises(kind, match="t2v_1") as caught:
            script.run(script.flows().wait(RUNNING, timeout_s=None))
        assert caught.value.task.error.code == "bad_output"  # type: ignore[attr-defined]

    def test_unreadable_event_is_passed_over(self) -> None:
        pieces = [b"data: nonsense\n\n", b'data: {"data": 5}\n\n', event(2, task("completed"))]
        script = Script([[STREAM, *pieces], ok(task("completed", result={}))])
        script.run(script.flows().wait(RUNNING, timeout_s=None))

    def test_finished_task_is_not_asked_about_again(self) -> None:
        script = Script([])
        done = Task(**task("completed", result={"sha256": "x"}))
        assert script.run(script.flows().wait(done, timeout_s=None)) == done


class TestChanging:
    def test_only_the_changes_are_sent(self) -> None:
        script = Script([ok(task())])
        script.run(script.flows().regenerate("t2v_1", {"duration_s": 4, "seed": None}, "a star"))
        assert script.asked[0].body == {"duration": 4, "seed": None, "prompt": "a star"}
        assert script.asked[0].headers["Idempotency-Key"]

    def test_deleting_is_not_repeated_when_the_answer_was_lost(self) -> None:
        script = Script([LOST])
        with pytest.raises(ConnectionLost):
            script.run(script.flows().delete("t2v_1"))


class TestEvents:
    def test_tells_each_event_until_the_task_is_over(self) -> None:
        events = [event(1, task("processing", progress=0.5)), event(2, task("failed"))]
        script = Script([[STREAM, *events]])
        script.run(script.flows().events("t2v_1", after=""))
        told = [(news.id, news.type, news.task.status) for news in script.reported]
        assert told == [("1.1", "x", "processing"), ("1.2", "x", "failed")]

    def test_goes_on_after_the_last_event_when_the_stream_breaks(self) -> None:
        half = event(5, task("processing"))[:20]
        script = Script(
            [
                [STREAM, event(4, task("processing")), half, LOST],
                REFUSED,
                [STREAM, event(9, task("completed"))],
            ]
        )
        script.run(script.flows().events("t2v_1", after="1.2"))
        heard = [request.headers["Last-Event-ID"] for request in script.asked]
        assert heard == ["1.2", "1.4", "1.4"]
        assert [news.id for news in script.reported] == ["1.4", "1.9"]

    def test_goes_on_when_a_stream_ends_before_the_task(self) -> None:
        script = Script([[STREAM], [STREAM, event(1, task("completed"))]])
        script.run(script.flows().events("t2v_1", after=""))
        assert [news.task.status for news in script.reported] == ["completed"]

    def test_is_over_when_nothing_more_will_come(self) -> None:
        script = Script([[Reply(status=204, headers={})]])
        script.run(script.flows().events("t2v_1", after="1.9"))
        assert script.reported == []

    def test_passes_over_what_it_cannot_read(self) -> None:
        pieces = [b"data: nonsense\n\n", b"data: []\n\n", event(2, task("completed"))]
        script = Script([[STREAM, *pieces]])
        script.run(script.flows().events("t2v_1", after=""))
        assert [news.id for news in script.reported] == ["1.2"]

    def test_a_deleted_task_ends_it_with_an_error(self) -> None:
        script = Script([[STREAM, event(1, task("processing")), LOST], [no(404)]])
        with pytest.raises(NotFound):
            script.run(script.flows().events("t2v_1", after=""))

    def test_gives_up_when_the_server_stays_away(self) -> None:
        script = Script([[STREAM, LOST], *[REFUSED] * 8])
        with pytest.raises(ServerUnreachable):
            script.run(script.flows(patience=Patience(outage_s=20)).events("t2v_1", after=""))

    def test_patience_begins_anew_with_each_event(self) -> None:
        away: list[Any] = [REFUSED] * 5
        script = Script(
            [
                [STREAM, event(1, task("processing")), LOST],
                *away,
                [STREAM, event(2, task("processing")), LOST],
                *away,
                [STREAM, event(3, task("completed"))],
            ]
        )
        script.run(script.flows(patience=Patience(outage_s=14)).events("t2v_1", after=""))
        assert script.now > 14


class TestDownload:
    DATA = b"0123456789"
    SHA256 = hashlib.sha256(DATA).hexdigest()

    def fetch(self, script: Script, sha256: str = SHA256) -> bytes:
        sink = MemorySink()
        script.run(script.flows().download("/x", {}, into=sink, sha256=sha256))
        return sink.data

    def test_goes_on_where_the_connection_dropped(self) -> None:
        partial = Reply(status=206, headers={})
        script = Script([[STREAM, b"0123", LOST], [partial, b"456789"]])
        assert self.fetch(script) == self.DATA
        assert script.asked[1].headers == {"Range": "bytes=4-"}

    def test_starts_anew_where_ranges_are_not_known(self) -> None:
        script = Script([[STREAM, b"0123", LOST], [STREAM, self.DATA]])
        assert self.fetch(script) == self.DATA

    def test_takes_nothing_more_to_send_as_the_end(self) -> None:
        script = Script([[STREAM, self.DATA, LOST], [no(416)]])
        assert self.fetch(script) == self.DATA

    def test_refuses_bytes_with_another_checksum(self) -> None:
        with pytest.raises(DownloadDamaged):
            self.fetch(Script([[STREAM, b"0123456780"]]))

    def test_gives_up_on_a_refusal(self) -> None:
        with pytest.raises(ApiError):
            self.fetch(Script([[no(404)]]))
