"""Clients that ask the API over HTTP and note every answer in a history."""

import http.client
import itertools
import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.faults.history import End, History

TIMEOUT_S = 30.0
AGAIN_S = 0.2
"""Wait before a submit that was refused for the moment is sent again."""
CLOSED = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
PROMISES: dict[bool, End] = {True: "ok", False: "fail"}

_numbers = itertools.count(1)


class Client:
    """One caller with one connection, who goes to the next replica when his is gone.

    Args:
        ports: Returns where replicas listen.
        keys: API keys, of which each call takes one at random.
    """

    def __init__(
        self,
        history: History,
        ports: Callable[[], Sequence[int]],
        keys: Sequence[str],
    ) -> None:
        self._name = f"client {next(_numbers)}"
        self._history = history
        self._ports = ports
        self._keys = keys
        self._connection: http.client.HTTPConnection | None = None

    def submit(self, key: str | None = None, **fields: Any) -> str | None:
        """Order a clip nobody else orders; return its task, None if that is not certain."""
        prompt = f"a red ball {next(_numbers)} of {self._name}"
        body = {"prompt": prompt, "duration": 3, "resolution": "480p", "cache": False, **fields}
        answer = self.call("submit", "POST", "/v1/t2v/generate", body, key=key)
        return answer.get("task_id")

    def ping(self) -> dict[str, Any]:
        return self.call("ping", "GET", "/livez", None)

    def cancel(self, task_id: str, key: str) -> dict[str, Any]:
        path = f"/v1/t2v/tasks/{task_id}/cancel"
        return self.call("cancel", "POST", path, None, key=key, task_id=task_id)

    def status(self, task_id: str, key: str) -> dict[str, Any]:
        return self.call("status", "GET", f"/v1/t2v/status?task_id={task_id}", None, key=key)

    def call(
        self, name: str, method: str, path: str, body: Any, *, key: str | None = None, **noted: Any
    ) -> dict[str, Any]:
        """Return the answer; empty where there was none."""
        began = time.time()
        try:
            status, answer = self._exchange(method, path, body, key or random.choice(self._keys))
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection = None
            value = {**noted, "error": type(error).__name__}
            self._history.note(self._name, name, began, end="info", value=value)
            return {}
        value = {**noted, "status": status, "task_id": answer.get("task_id")}
        self._history.note(self._name, name, began, end=PROMISES[status < 300], value=value)
        return answer if status < 300 else {}

    def _exchange(self, method: str, path: str, body: Any, key: str) -> tuple[int, dict[str, Any]]:
        """Ask once; on a kept connection that turns out to be closed, once more on a new one."""
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        headers["Idempotency-Key"] = secrets.token_hex(8)
        text = None if body is None else json.dumps(body)
        if self._connection:
            try:
                return self._ask(self._connection, method, path, text, headers)
            except CLOSED:
                self._connection = None
        port = random.choice(self._ports())
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        return self._ask(self._connection, method, path, text, headers)

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        text: str | None,
        headers: Mapping[str, str],
    ) -> tuple[int, dict[str, Any]]:
        connection.request(method, path, text, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")


class Load:
    """Submits from several threads until `stop`; or until *count* were accepted.

    Args:
        rate_per_s: Of all threads together, by an open schedule; None = as fast as answers come.
    """

    def __init__(
        self,
        make_client: Callable[[], Client],
        *,
        count: int | None = None,
        rate_per_s: float | None = None,
        threads: int = 4,
    ) -> None:
        self._tickets = itertools.count()
        self._count = count
        self._rate_per_s = rate_per_s
        self._began = time.monotonic()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._submit, args=(make_client(),)) for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _submit(self, client: Client) -> None:
        while not self._stopped.is_set():
            number = next(self._tickets)
            if self._count is not None and number >= self._count:
                return
            if self._rate_per_s:
                due = self._began + number / self._rate_per_s
                if self._stopped.wait(max(0.0, due - time.monotonic())):
                    return
            self._submit_one(client)

    def _submit_one(self, client: Client) -> None:
        while client.submit() is None and self._count is not None:
            if self._stopped.wait(AGAIN_S):
                return

    @property
    def is_over(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        self._stopped.set()
        self.wait()

    def wait(self) -> None:
        for thread in self._threads:
            thread.join()
