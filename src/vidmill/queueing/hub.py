"""What a process remembers of the events that reach it, and who waits for them."""

import json
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from vidmill.domain.job import JobState
from vidmill.domain.ports import CancelRequest
from vidmill.telemetry import get_logger

log = get_logger(__name__)

LATEST_MAX = 10_000
"""Running tasks whose newest event is remembered; far above what runs at once anywhere."""

OnEvent = Callable[[Mapping[str, Any]], None]


def write_event(job_id: str, event: Mapping[str, Any]) -> str:
    return json.dumps([job_id, event], separators=(",", ":"))


def write_cancel(job_id: str, attempt: int) -> str:
    return json.dumps([job_id, attempt], separators=(",", ":"))


def read_cancel(message: str | bytes) -> CancelRequest:
    return CancelRequest(*json.loads(message))


class Hub:
    """The newest event of each running task, and the watchers. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._watchers: defaultdict[str, list[OnEvent]] = defaultdict(list)

    def latest(self, job_id: str) -> Mapping[str, Any] | None:
        with self._lock:
            return self._latest.get(job_id)

    def subscribe(self, job_id: str, on_event: OnEvent) -> Callable[[], None]:
        with self._lock:
            self._watchers[job_id].append(on_event)
        return lambda: self._unsubscribe(job_id, on_event)

    def deliver(self, message: str | bytes) -> None:
        """Remember the event in *message* and call who waits for it."""
        job_id, event = json.loads(message)
        with self._lock:
            self._remember(job_id, event)
            watchers = list(self._watchers.get(job_id, ()))
        for on_event in watchers:
            try:
                on_event(event)
            except Exception:  # one watcher's defect must not deafen the others
                log.exception("event_watcher_failed", job_id=job_id)

    def _unsubscribe(self, job_id: str, on_event: OnEvent) -> None:
        with self._lock:
            others = [watcher for watcher in self._watchers[job_id] if watcher is not on_event]
            self._watchers[job_id] = others
            if not others:
                del self._watchers[job_id]

    def _remember(self, job_id: str, event: Mapping[str, Any]) -> None:
        self._latest.pop(job_id, None)
        if event.get("state") == JobState.RUNNING:
            self._latest[job_id] = event
        if len(self._latest) > LATEST_MAX:
            self._latest.popitem(last=False)
