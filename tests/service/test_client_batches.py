"""The SDK's batches against the real API and a real database; the worker is played by hand."""

import asyncio
import json
import zipfile
from pathlib import Path

import pytest

from tests.desks import KEY
from tests.servers import CONTENTS, Server, deliver, fail, working
from vidmill.client import (
    AsyncVidmill,
    Batch,
    BatchUnfinished,
    ClipRequest,
    Conflict,
    InvalidRequest,
    NotFound,
    Row,
    Vidmill,
)

pytestmark = pytest.mark.sqlite
"""What is tried here is a client; `tests/service/store` and others try both databases."""

ROWS: list[Row] = [
    ClipRequest(prompt="a red ball", duration_s=3, resolution="480p"),
    {"prompt": "a green ball", "custom_id": "green"},
    {"prompt": " ", "custom_id": "blank"},
]


def test_rows_are_checked_confirmed_followed_and_fetched(
    server: Server, vidmill: Vidmill, tmp_path: Path
) -> None:
    verdict = vidmill.batches.create(ROWS, name="balls")
    assert (verdict.state, verdict.name) == ("checked", "balls")
    assert (verdict.counts.ready, verdict.counts.invalid) == (2, 1)
    assert [(row.line, row.custom_id) for row in verdict.problems] == [(3, "blank")]
    assert verdict.problems[0].problems[0].field == "prompt"
    assert list(vidmill.tasks()) == []

    seen: list[Batch] = []
    with working(server.bench, deliver, fail):
        assert vidmill.batches.confirm(verdict.batch_id).state == "processing"
        done = vidmill.batches.wait(verdict.batch_id, on_progress=seen.append, timeout_s=60)
    assert (done.state, done.counts.completed, done.counts.failed) == ("completed", 1, 1)
    assert seen[-1] == done
    results = {result.line: result for result in vidmill.batches.results(verdict.batch_id)}
    assert sorted(result.status for result in results.values()) == [
        "completed",
        "failed",
        "invalid",
    ]
    made = next(result for result in results.values() if result.result)
    assert made.task_id
    assert vidmill.result(made.task_id).bytes() == CONTENTS["video"]
    path = vidmill.batches.archive(verdict.batch_id, tmp_path / "out" / "all.zip")
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        assert "manifest.csv" in archive.namelist()
    assert manifest
    rerun = vidmill.batches.rerun_failed(verdict.batch_id)
    assert (rerun.state, rerun.counts.queued) == ("processing", 1)


def test_a_file_is_read_by_its_ending(vidmill: Vidmill, tmp_path: Path) -> None:
    table, lines = tmp_path / "rows.csv", tmp_path / "rows.jsonl"
    table.write_text("custom_id,prompt\n1,红色的球\n2,a star\n", encoding="gb18030")
    lines.write_text('{"prompt": "a ball"}\n', encoding="utf-8")
    checked = vidmill.batches.upload(table, encoding="gb18030", defaults={"resolution": "480p"})
    assert [row.prompt for row in checked.samples] == ["红色的球", "a star"]
    assert vidmill.batches.upload(lines, name="lines").counts.ready == 1
    assert [batch.name for batch in vidmill.batches.list()] == ["lines", None]
    with pytest.raises(ValueError, match=r"rows\.xlsx"):
        vidmill.batches.upload(tmp_path / "rows.xlsx")


def test_what_is_right_can_be_confirmed_at_once(vidmill: Vidmill) -> None:
    batch = vidmill.batches.create(ROWS[:2], confirm=True)
    assert (batch.state, batch.counts.queued) == ("processing", 2)
    ids = [row.task_id for row in vidmill.batches.rows(batch.batch_id)]
    assert ids == [task.task_id for task in reversed(list(vidmill.tasks()))]


def test_a_batch_can_rest_go_on_and_be_cancelled(vidmill: Vidmill) -> None:
    batch_id = vidmill.batches.create(ROWS[:2], confirm=True).batch_id
    assert vidmill.batches.pause(batch_id).state == "paused"
    with pytest.raises(BatchUnfinished) as caught:
        vidmill.batches.wait(batch_id, timeout_s=0.2)
    assert caught.value.batch.state == "paused"
    assert vidmill.batches.resume(batch_id).state == "processing"
    with pytest.raises(Conflict):
        vidmill.batches.delete(batch_id)
    assert vidmill.batches.cancel(batch_id).counts.cancelled == 2
    assert vidmill.batches.wait(batch_id, timeout_s=60).state == "cancelled"
    vidmill.batches.delete(batch_id)
    with pytest.raises(NotFound):
        vidmill.batches.get(batch_id)


def test_waiting_for_what_was_never_confirmed_is_an_error(vidmill: Vidmill) -> None:
    verdict = vidmill.batches.create(ROWS[:1])
    with pytest.raises(BatchUnfinished, match="waits to be confirmed"):
        vidmill.batches.wait(verdict.batch_id)


def test_all_or_nothing_queues_nothing_when_a_row_is_wrong(vidmill: Vidmill) -> None:
    verdict = vidmill.batches.create(ROWS)
    with pytest.raises((Conflict, InvalidRequest)):
        vidmill.batches.confirm(verdict.batch_id, accept="all_or_nothing")
    assert vidmill.batches.get(verdict.batch_id).state == "checked"


def test_the_async_client_makes_a_batch_too(server: Server, tmp_path: Path) -> None:
    async def use() -> tuple[str, list[str], Path]:
        async with AsyncVidmill(server.url, KEY) as vidmill:
            batch = await vidmill.batches.create(ROWS[:2], confirm=True)
            done = await vidmill.batches.wait(batch.batch_id, timeout_s=60)
            results = [one.status async for one in vidmill.batches.results(batch.batch_id)]
            path = await vidmill.batches.archive(batch.batch_id, tmp_path / "all.zip")
            return done.state, results, path

    with working(server.bench, deliver, deliver):
        state, results, path = asyncio.run(use())
    assert (state, results) == ("completed", ["completed", "completed"])
    assert zipfile.is_zipfile(path)
