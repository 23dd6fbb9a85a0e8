"""An API on a real port, and a worker played by hand, for tests of clients."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.builders import make_result
from tests.desks import Bench
from vidmill.api.serving import make_server
from vidmill.domain.clip import Asset
from vidmill.domain.job import Job
from vidmill.store import jobs

CONTENTS = {"video": b"an mp4" * 50_000, "poster": b"a jpeg", "preview": b"a webp"}
TYPES = {"video": "video/mp4", "poster": "image/jpeg", "preview": "image/webp"}
SUFFIXES = {"video": "mp4", "poster": "jpg", "preview": "webp"}
WAIT_S = 20.0


class Server:
    """The API of a bench on a real port, which can go away and come back."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def num_answered(self) -> int:
        """Requests answered since it started, refused ones too."""
        return self._uvicorn.server_state.total_requests

    def start(self) -> None:
        self._uvicorn = make_server(self.bench.app, port=self.port, timeout_graceful_shutdown=1)
        self._thread = threading.Thread(target=self._uvicorn.run)
        self._thread.start()
        until(lambda: self._uvicorn.started)
        self.port = self._uvicorn.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join()


def until(is_true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def deliver(bench: Bench, job: Job) -> None:
    """Store the files of *job* and settle it, as the finish child and the supervisor do."""
    assets = {}
    for variant, data in CONTENTS.items():
        key = f"{job.public_id}/{job.attempt}/{variant}.{SUFFIXES[variant]}"
        path = bench.folder / variant
        path.write_bytes(data)
        bench.app.blobs.put_file(key, path, content_type=TYPES[variant])
        assets[variant] = Asset(
            key=key,
            content_type=TYPES[variant],
            size_bytes=len(data),
            md5=hashlib.md5(data).hexdigest(),
            sha256=hashlib.sha256(data).hexdigest(),
            width_px=832,
            height_px=480,
        )
    bench.settle(job, jobs.Succeeded(result=make_result(assets=assets)))


def claim_when_queued(bench: Bench) -> Job:
    pool = bench.app.settings.pool
    found: list[Job] = []

    def look() -> bool:
        job = bench.app.db.write(
            lambda uow: jobs.claim(uow, pool=pool, worker="w1", profile="tiny", lease_s=30.0)
        )
        found.extend([job] if job else [])
        return bool(found)

    until(look)
    return found[0]


@contextmanager
def working(bench: Bench, *ends: Callable[[Bench, Job], None]) -> Iterator[None]:
    """Meanwhile, end one job after the other in the given ways."""

    def work() -> None:
        for end in ends:
            end(bench, claim_when_queued(bench))

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join(WAIT_S)
    assert not thread.is_alive()


def fail(bench: Bench, job: Job) -> None:
    bench.settle(job, jobs.Failed(code="bad_output", message="every frame is black"))
