"""Servers that render for others, as they were seen to behave, on real ports of this machine.

A clip goes one step further each time it is looked at, so nothing here waits for a clock. What they
draw is noise that follows from everything they were asked, so that a field which got lost shows.
"""

import hashlib
import io
import itertools
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.waiting import wait_until
from vidmill.domain.clip import Size

KEY = "the-operators-key"
LIVE = {"", "queued", "running"}


def mp4(asked: Mapping[str, Any], size: Size, *, num_frames: int, fps: int) -> bytes:
    """Return a clip of noise that no other order has."""
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = size.width_px, size.height_px, "yuv420p"
        stream.codec_context.thread_count = 1
        for _ in range(num_frames):
            picture = rng.integers(0, 256, (size.height_px, size.width_px, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


@dataclass
class Order:
    """A clip that was ordered, and how often it was looked at since."""

    asked: dict[str, Any]
    steps: int
    looks: int = 0
    state: str = ""


@dataclass
class Twin(ABC):
    """What both kinds have in common. Faults are switched on by setting their attributes.

    Attributes:
        queued_looks: So many looks find a new clip waiting.
        num_frames: Frames it makes, instead of those asked for.
        size: Size it makes.
        fps: Rate it makes.
        fails: Body of the failure that every clip ends with.
        overlaps: How many clips were ordered while another was not over.
        troubles: Answers given instead, one after the other.
    """

    queued_looks: int = 1
    num_frames: int | None = None
    size: Size | None = None
    fps: int | None = None
    fails: dict[str, Any] | None = None
    content: bytes | None = None
    orders: dict[str, Order] = field(default_factory=dict)
    troubles: list[Response] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    overlaps: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        self._names = (f"clip-{number}" for number in itertools.count(1))

    @property
    def last(self) -> Order:
        return next(reversed(self.orders.values()))

    def restart(self) -> None:
        """Forget everything, as a process that keeps its records in memory."""
        self.orders.clear()

    def add(self, asked: dict[str, Any], steps: int) -> str:
        name = next(self._names)
        self.overlaps += any(each.state in LIVE for each in self.orders.values())
        self.orders[name] = Order(asked, steps)
        return name

    def look(self, order: Order) -> None:
        if order.state in LIVE:
            order.looks += 1
            drawn = order.looks - self.queued_looks
            over = "failed" if self.fails else "done"
            order.state = "queued" if drawn <= 0 else "running" if drawn <= order.steps else over

    def draw(self, order: Order, size: Size, num_frames: int, fps: int) -> bytes:
        if self.content is not None:
            return self.content
        made = self.num_frames if self.num_frames is not None else num_frames
        return mp4(order.asked, self.size or size, num_frames=made, fps=self.fps or fps)

    def answering(self, handle: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            self.calls.append((request.method, request.url.path))
            if request.headers.get("authorization") != f"Bearer {KEY}":
                return self.refusal()
            if self.troubles:
                return self.troubles.pop(0)
            response: Response = await handle(request)
            return response

        return answer

    def refusal(self) -> Response:
        return JSONResponse({"error": {"message": f"invalid key, not {KEY}"}}, 401)

    @abstractmethod
    def app(self) -> Starlette:
        """Return its routes, in its own dialect."""


@dataclass
class VideosTwin(Twin):
    """vLLM-Omni (`is_form`), or SGLang."""

    is_form: bool = False
    has_percent: bool = True
    content_lags: int = 0

    def app(self) -> Starlette:
        here = self.answering
        return Starlette(
            routes=[
                Route("/v1/models", here(self._models)),
                Route("/v1/videos", here(self._create), methods=["POST"]),
                Route("/v1/videos/{name}", here(self._get)),
                Route("/v1/videos/{name}", here(self._delete), methods=["DELETE"]),
                Route("/v1/videos/{name}/content", here(self._content)),
            ]
        )

    async def _models(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "Wan2.2-T2V-A14B"}]})

    async def _create(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0]
        if kind != ("multipart/form-data" if self.is_form else "application/json"):
            detail = [{"loc": ["body", "prompt"], "msg": "Field required", "input": "a secret"}]
            return JSONResponse({"detail": detail}, 422)
        asked: dict[str, Any] = dict(await request.form() if self.is_form else await request.json())
        name = self.add(asked, int(asked["num_inference_steps"]))
        return JSONResponse({"id": name, "object": "video", "status": "queued", "progress": 0})

    async def _get(self, request: Request) -> Response:
        order = self.orders.get(request.path_params["name"])
        if order is None:
            return JSONResponse({"detail": "Video not found"}, 404)
        self.look(order)
        status = {"queued": "queued", "running": "in_progress", "done": "completed"}
        doc = {"id": request.path_params["name"], "status": status.get(order.state, "failed")}
        percent = 100 * (order.looks - self.queued_looks) // order.steps if self.has_percent else 0
        doc["progress"] = 100 if order.state == "done" else max(0, min(99, percent))
        if order.state == "failed":
            doc["error"] = self.fails
            return JSONResponse(doc, 500 if self.is_form else 200)
        return JSONResponse(doc)

    async def _delete(self, request: Request) -> Response:
        found = self.orders.pop(request.path_params["name"], None)
        return JSONResponse({"deleted": True}, 200 if found else 404)

    async def _content(self, request: Request) -> Response:
        order = self.orders.get(request.path_params["name"])
        if order is None or order.state != "done" or self.content_lags > 0:
            self.content_lags -= 1
            return JSONResponse({"detail": "not ready"}, 404)
        asked = order.asked
        size = Size(int(asked["width"]), int(asked["height"]))
        data = self.draw(order, size, int(asked.get("num_frames", 5)), int(asked["fps"]))
        return Response(data, media_type="video/mp4")


@dataclass
class DashScopeTwin(Twin):
    """Alibaba Model Studio, with the files on the same port, where no key is wanted."""

    makes_fps: int = 4

    def app(self) -> Starlette:
        here = self.answering
        submit = "/api/v1/services/aigc/video-generation/video-synthesis"
        return Starlette(
            routes=[
                Route(submit, here(self._submit), methods=["POST"]),
                Route("/api/v1/tasks/{name}", here(self._get)),
                Route("/api/v1/tasks/{name}/cancel", here(self._cancel), methods=["POST"]),
                Route("/oss/{name}.mp4", self._file),
            ]
        )

    def refusal(self) -> Response:
        return JSONResponse({"code": "InvalidApiKey", "message": "Invalid API-key provided."}, 401)

    async def _submit(self, request: Request) -> Response:
        if request.headers.get("x-dashscope-async") != "enable":
            message = "current user api does not support synchronous calls"
            return JSONResponse({"code": "AccessDenied", "message": message}, 403)
        name = self.add(await request.json(), steps=2)
        return JSONResponse({"output": {"task_id": name, "task_status": "PENDING"}})

    async def _get(self, request: Request) -> Response:
        name = request.path_params["name"]
        order = self.orders.get(name)
        if order is None:
            return JSONResponse({"output": {"task_id": name, "task_status": "UNKNOWN"}})
        self.look(order)
        words = {"queued": "PENDING", "running": "RUNNING", "done": "SUCCEEDED"}
        output: dict[str, Any] = {
            "task_id": name,
            "task_status": words.get(order.state, order.state.upper()),
        }
        if order.state == "done":
            output["video_url"] = f"{self.url}/oss/{name}.mp4?Expires=1&Signature=s"
        if order.state == "failed":
            output |= self.fails or {}
        return JSONResponse({"request_id": "r", "output": output})

    async def _cancel(self, request: Request) -> Response:
        order = self.orders[request.path_params["name"]]
        if order.state not in {"", "queued"}:
            message = "The task is not in PENDING status"
            return JSONResponse({"code": "UnsupportedOperation", "message": message}, 400)
        order.state = "canceled"
        return JSONResponse({"request_id": "r"})

    async def _file(self, request: Request) -> Response:
        assert "authorization" not in request.headers  # the key must not go to another host
        order = self.orders[request.path_params["name"]]
        parameters = order.asked["parameters"]
        size = Size(*map(int, parameters.get("size", "80*48").split("*")))
        num_frames = parameters["duration"] * self.makes_fps + 1
        return Response(self.draw(order, size, num_frames, self.makes_fps), media_type="video/mp4")


@contextmanager
def serving(twin: Twin) -> Iterator[str]:
    """Serve *twin* meanwhile; give the address, which is the twin's `url` too."""
    config = uvicorn.Config(
        twin.app(), host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    assert wait_until(lambda: server.started, timeout_s=20.0, step_s=0.005)
    twin.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield twin.url
    server.should_exit = True
    thread.join()
