"""The SDK against a server that misbehaves: real sockets, dropped in mid-answer."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vidmill.client import (
    AsyncVidmill,
    DownloadDamaged,
    Task,
    Vidmill,
    find_connection,
)

pytestmark = pytest.mark.sqlite
"""What is tried here is a client; `tests/service/store` and others try both databases."""

DATA = bytes(range(256)) * 1000
TASK = {"task_id": "t2v_1", "status": "completed", "result": {"files": {}}}


class Rude(BaseHTTPRequestHandler):
    """Cuts the first download in the middle, takes a submit and hangs up."""

    asked: ClassVar[list[tuple[str, str, str | None]]]
    keys: ClassVar[list[str | None]]

    def do_GET(self) -> None:
        self._note()
        if self.path.endswith("/events"):
            self.close_connection = True
        elif self.path.startswith("/v1/t2v/tasks/t2v_1/content"):
            self._content()
        else:
            self._json(TASK)

    def do_POST(self) -> None:
        self._note()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.keys.append(self.headers["Idempotency-Key"])
        if len(self.keys) > 1:
            self._json(TASK)
        else:
            self.close_connection = True  # taken, and never answered

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base's name
        pass

    def _note(self) -> None:
        self.asked.append((self.command, self.path, self.headers["Range"]))

    def _json(self, doc: Any) -> None:
        body = json.dumps(doc).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _content(self) -> None:
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        end = len(DATA) if start else 100_000
        self.wfile.write(DATA[start:end])
        self.close_connection = True


@pytest.fixture
def url() -> Iterator[str]:
    Rude.asked = []
    Rude.keys = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Rude)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_goes_on_after_a_drop(url: str, tmp_path: Path) -> None:
    with Vidmill(url, "k") as vidmill:
        path = vidmill.result("t2v_1").save(tmp_path / "clip.mp4")
    assert path.read_bytes() == DATA
    ranges = [asked[2] for asked in Rude.asked if "content" in asked[1]]
    assert ranges[0] is None
    assert str(ranges[1]).startswith("bytes=")
    assert list(tmp_path.iterdir()) == [path]


def test_async_download_goes_on_after_a_drop(url: str, tmp_path: Path) -> None:
    async def save() -> Path:
        async with AsyncVidmill(url, "k") as vidmill:
            return await (await vidmill.result("t2v_1")).save(tmp_path / "clip.mp4")

    assert asyncio.run(save()).read_bytes() == DATA


def test_damaged_download_leaves_no_file(url: str, tmp_path: Path) -> None:
    with Vidmill(url, "k") as vidmill:
        video = vidmill.result("t2v_1")
        wrong = {"files": {"video": {"sha256": "0" * 64}}}
        task = Task.model_validate({**TASK, "result": wrong})
        with pytest.raises(DownloadDamaged):
            vidmill.wait(task).save(tmp_path / "clip.mp4")
    assert video.task_id == "t2v_1"
    assert list(tmp_path.iterdir()) == []


def test_submit_whose_answer_was_lost_is_sent_again_under_the_same_key(url: str) -> None:
    with Vidmill(url, "k") as vidmill:
        assert vidmill.submit("a red ball").task_id == "t2v_1"
    assert [asked[:2] for asked in Rude.asked] == [("POST", "/v1/t2v/generate")] * 2
    assert Rude.keys == [Rude.keys[0]] * 2
    assert Rude.keys[0]


def test_wait_polls_when_every_stream_is_cut(url: str) -> None:
    with Vidmill(url, "k") as vidmill:
        video = vidmill.wait(Task(task_id="t2v_1", status="queued"))
    assert video.task.status == "completed"


def test_client_moves_with_a_server_that_restarts_on_another_port(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "connection.json"
    path.write_text(json.dumps({"url": "http://127.0.0.1:9", "api_key": "k"}))
    monkeypatch.setenv("VIDMILL_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("VIDMILL_URL", raising=False)
    assert find_connection().url == "http://127.0.0.1:9"
    with Vidmill() as vidmill:
        path.write_text(json.dumps({"url": url, "api_key": "k"}))
        assert vidmill.task("t2v_1").status == "completed"
