"""Both colours of the SDK ask a server the same things: every method, on the wire."""

import asyncio
import inspect
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vidmill.client import (
    AsyncVideoGenerator,
    AsyncVidmill,
    ClipRequest,
    Task,
    VideoGenerator,
    Vidmill,
)

ANYTHING: Mapping[str, Any] = {
    "task_id": "t2v_1",
    "batch_id": "bat_1",
    "storyboard_id": "sb_1",
    "id": "we_1",
    "status": "completed",
    "state": "completed",
    "result": {"url": "http://x/clip.mp4"},
    "result_url": "http://x/clip.mp4",
    "data": [],
    "next_cursor": None,
    "type": "webhook.test",
    "replayed": 0,
    "tenant": "t",
    "plan": "p",
    "lane": "vip",
    "api_key": "vm_1",
    "name": "acme",
}
"""An answer that every question takes, but those below."""

FRAMES = {"width": 1, "height": 1, "frames": 1, "frame_rate": 1}
SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "/explain": {
        "task_id": "t2v_1",
        "status": "completed",
        "prompt": {"used": "x"},
        "negative_prompt": {"used": "y"},
        "seed": 1,
        "seed_was_asked_for": False,
        "steps": 1,
        "guidance_scale": 1,
        "guidance_scale_2": 1,
        "flow_shift": 1,
        "drawn": FRAMES,
        "delivered": FRAMES,
    },
    "/capabilities": {
        "model": {"name": "tiny"},
        "resolutions": [],
        "duration": {"min": 3, "max": 10, "step": 0.1},
        "frame_rates": [24],
        "default_frame_rate": 24,
        "limits": {"prompt_max_chars": 200, "negative_prompt_max_chars": 500, "seed_max": 9},
    },
    "/storyboards/estimate": {"duration": 6.5, "price": {"credits": 70}},
    "/estimate": {"cache_hit": False},
    "/results": {"line": 1, "status": "completed"},
}


class Parrot(BaseHTTPRequestHandler):
    """Writes down what it is asked, and says what anybody wants to hear."""

    asked: ClassVar[list[tuple[str, str, bytes, bool, str | None]]]

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        has_key = "Idempotency-Key" in self.headers
        kind = self.headers["Content-Type"]
        if kind and "boundary=" in kind:  # which is random
            boundary = kind.rpartition("=")[2]
            kind, body = kind.replace(boundary, "-"), body.replace(boundary.encode(), b"-")
        self.asked.append((self.command, self.path, body, has_key, kind))
        path = self.path.partition("?")[0]
        special = [doc for end, doc in SPECIAL.items() if path.endswith(end)]
        if path.endswith("/events"):
            self._say(f"data: {json.dumps({'data': ANYTHING})}\n\n".encode())
        else:
            self._say(json.dumps(special[0] if special else ANYTHING).encode() + b"\n")

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815  the base's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base's name
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Parrot.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Parrot)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


TASK = Task(task_id="t2v_1", status="queued", queue_position=0)
CLIP = ClipRequest(prompt="a red ball", webhook_url="https://x/hook", aspect_ratio="9:16")
SINCE = datetime(2026, 11, 20, tzinfo=UTC)

CALLS: Mapping[str, Callable[[Any, Path], Any]] = {
    "generate": lambda v, _: v.generate("a red ball", duration_s=3, seed=7),
    "submit": lambda v, _: v.submit(CLIP),
    "wait": lambda v, _: v.wait(TASK),
    "events": lambda v, _: v.events(TASK, after="1.2"),
    "status": lambda v, _: v.status("t2v_1"),
    "task": lambda v, _: v.task("t2v_1"),
    "result": lambda v, _: v.result("t2v_1"),
    "tasks": lambda v, _: v.tasks(status="failed", client_reference="r", q="x", page_size=3),
    "cancel": lambda v, _: v.cancel("t2v_1"),
    "run_next": lambda v, _: v.run_next("t2v_1"),
    "retry": lambda v, _: v.retry("t2v_1"),
    "regenerate": lambda v, _: v.regenerate("t2v_1", prompt="a star", duration_s=4),
    "delete": lambda v, _: v.delete("t2v_1"),
    "estimate": lambda v, _: v.estimate("a red ball"),
    "explain": lambda v, _: v.explain("t2v_1"),
    "quota": lambda v, _: v.quota(),
    "capabilities": lambda v, _: v.capabilities(),
    "readiness": lambda v, _: v.readiness(),
    "generate_many": lambda v, _: v.generate_many([CLIP]),
    "batches.create": lambda v, _: v.batches.create(
        [CLIP, {"prompt": "b", "custom_id": "2"}], name="n", confirm=True, defaults={"seed": 1}
    ),
    "batches.upload": lambda v, folder: v.batches.upload(
        folder / "rows.csv", name="n", encoding="utf-8", defaults={"seed": 1}
    ),
    "batches.confirm": lambda v, _: v.batches.confirm("bat_1", accept="all_or_nothing"),
    "batches.wait": lambda v, _: v.batches.wait("bat_1"),
    "batches.get": lambda v, _: v.batches.get("bat_1"),
    "batches.list": lambda v, _: v.batches.list(),
    "batches.rows": lambda v, _: v.batches.rows("bat_1", status="invalid"),
    "batches.results": lambda v, _: v.batches.results("bat_1"),
    "batches.archive": lambda v, folder: v.batches.archive("bat_1", folder / "all.zip"),
    "batches.pause": lambda v, _: v.batches.pause("bat_1"),
    "batches.resume": lambda v, _: v.batches.resume("bat_1"),
    "batches.cancel": lambda v, _: v.batches.cancel("bat_1"),
    "batches.rerun_failed": lambda v, _: v.batches.rerun_failed("bat_1"),
    "batches.delete": lambda v, _: v.batches.delete("bat_1"),
    "storyboards.create": lambda v, _: v.storyboards.create(
        ["a red ball", {"prompt": "b", "crossfade": 0.5}], name="n", crossfade=1.0
    ),
    "storyboards.estimate": lambda v, _: v.storyboards.estimate(["a", "b"], resolution="480p"),
    "storyboards.wait": lambda v, _: v.storyboards.wait("sb_1"),
    "storyboards.get": lambda v, _: v.storyboards.get("sb_1"),
    "storyboards.list": lambda v, _: v.storyboards.list(),
    "storyboards.replace_shot": lambda v, _: v.storyboards.replace_shot(
        "sb_1", 2, prompt="c", crossfade=0.0, duration_s=4, seed=7
    ),
    "storyboards.save": lambda v, folder: v.storyboards.save("sb_1", folder / "whole.mp4"),
    "storyboards.cancel": lambda v, _: v.storyboards.cancel("sb_1"),
    "storyboards.delete": lambda v, _: v.storyboards.delete("sb_1"),
    "webhooks.create": lambda v, _: v.webhooks.create("https://x/h", events=["webhook.test"]),
    "webhooks.list": lambda v, _: v.webhooks.list(),
    "webhooks.get": lambda v, _: v.webhooks.get("we_1"),
    "webhooks.update": lambda v, _: v.webhooks.update("we_1", enabled=False),
    "webhooks.delete": lambda v, _: v.webhooks.delete("we_1"),
    "webhooks.rotate_secret": lambda v, _: v.webhooks.rotate_secret("we_1"),
    "webhooks.test": lambda v, _: v.webhooks.test("we_1"),
    "webhooks.deliveries": lambda v, _: v.webhooks.deliveries("we_1", state="dead"),
    "webhooks.redeliver": lambda v, _: v.webhooks.redeliver("we_1", "msg_1"),
    "webhooks.replay": lambda v, _: v.webhooks.replay("we_1", since=SINCE, types=["a"]),
    "keys.create": lambda v, _: v.keys.create("k", scopes=["read"], expires_in_days=1, user="u"),
    "keys.list": lambda v, _: v.keys.list(),
    "keys.revoke": lambda v, _: v.keys.revoke("key_1"),
    "loras.add": lambda v, folder: v.loras.add(
        "acme",
        folder / "rows.csv",
        folder / "rows.csv",
        licence="own work",
        trigger_words=["acme style", "赤い"],
        strength=0.8,
    ),
    "loras.list": lambda v, _: v.loras.list(),
    "loras.get": lambda v, _: v.loras.get("acme"),
    "loras.enable": lambda v, _: v.loras.enable("acme"),
    "loras.disable": lambda v, _: v.loras.disable("acme"),
    "loras.delete": lambda v, _: v.loras.delete("acme"),
}

CREATING = {
    *("generate", "submit", "retry", "regenerate", "generate_many"),
    *("batches.create", "batches.upload", "batches.confirm", "batches.rerun_failed"),
    *("storyboards.create", "storyboards.replace_shot"),
    *("webhooks.create", "webhooks.rotate_secret"),
}
"""What makes or charges something; a key of the SDK's lets the server know a repetition."""


PARTS = ("batches", "storyboards", "webhooks", "keys", "loras")


def operations(client: object) -> set[str]:
    """Return the names of all that can be asked, those of parts as `part.name`."""
    parts = {
        "": client,
        **{part: getattr(client, part) for part in PARTS},
    }
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, part in parts.items()
        for name in dir(part)
        if not name.startswith("_") and inspect.ismethod(getattr(part, name)) and name != "close"
    }


def test_every_operation_is_in_the_table() -> None:
    with Vidmill("http://127.0.0.1:9", "k") as vidmill:
        assert set(CALLS) == operations(vidmill)


@pytest.mark.parametrize("name", CALLS)
def test_both_colours_ask_the_same(name: str, url: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt\na red ball\n", encoding="utf-8")

    async def ask() -> None:
        async with AsyncVidmill(url, "k") as vidmill:
            answer = CALLS[name](vidmill, tmp_path)
            if inspect.isasyncgen(answer):
                async for _ in answer:
                    pass
            else:
                await answer

    with Vidmill(url, "k") as vidmill:
        answer = CALLS[name](vidmill, tmp_path)
        if inspect.isgenerator(answer):
            list(answer)
    by_threads, Parrot.asked = Parrot.asked, []
    asyncio.run(ask())
    assert Parrot.asked == by_threads
    assert by_threads
    assert (name in CREATING) == by_threads[0][3]


def test_both_generators_ask_the_same(url: str) -> None:
    async def ask() -> str:
        generator = AsyncVideoGenerator("tiny", "k", url=url)
        link = await generator.generate("a red ball", {"duration": 3})
        await generator.close()
        return link

    generator = VideoGenerator("tiny", "k", url=url)
    link = generator.generate("a red ball", {"duration": 3})
    generator.close()
    by_threads, Parrot.asked = Parrot.asked, []
    assert asyncio.run(ask()) == link == "http://x/clip.mp4"
    assert Parrot.asked == by_threads
    assert [asked[1] for asked in by_threads] == ["/v1/t2v/capabilities", "/v1/t2v/generate"]
