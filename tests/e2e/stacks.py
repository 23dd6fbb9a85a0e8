"""`vidmill up` as a user starts it, in a process of its own, for tests that break it."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.waiting import wait_until
from tests.workers import command_line, descendants
from vidmill.worker.proc import kill_group

READY_S = 60.0
"""Far above what a start takes, for a machine that does other things as well."""

ROLES: Mapping[str, str] = {
    "supervisor": "vidmill.worker\0",
    "render child": "vidmill.worker.render_child\0",
    "finish child": "vidmill.worker.finish_child\0",
}
"""What is in the command line of each process below the main one."""

QUICK_ENV: Mapping[str, str] = {
    "VIDMILL_PORT": "0",
    "VIDMILL_LEASE_S": "4",
    "VIDMILL_HEARTBEAT_S": "1",
    "VIDMILL_POLL_S": "1",
    "VIDMILL_SWEEP_S": "1",
    "VIDMILL_PROMOTE_S": "0.2",
    "VIDMILL_RETRY_BASE_S": "0.2",
    "VIDMILL_DURATION_MIN_S": "0.5",
    "VIDMILL_ENCODER_PRESET": "ultrafast",
    "VIDMILL_INTERPOLATION": "blend",
    "VIDMILL_TORCH_THREADS": "1",
    "VIDMILL_LOG_FORMAT": "json",
}


class Stack:
    """One data folder, and whichever `vidmill up` runs on it now."""

    def __init__(self, data_dir: Path, env: Mapping[str, str]) -> None:
        self.data_dir = data_dir
        self._env = {**os.environ, **QUICK_ENV, "VIDMILL_DATA_DIR": str(data_dir), **env}
        self._log_path = data_dir.with_name(f"{data_dir.name}.log")
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.clean_up()

    def clean_up(self) -> None:
        """End it whatever state it is in; what it started dies with it."""
        if self.process.poll() is None:
            kill_group(self.process.pid)
            self.process.wait()

    def start(self) -> None:
        with self._log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vidmill", "up"],
                env=self._env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_listening(self) -> None:
        is_up = wait_until(lambda: self._answers("/livez"), timeout_s=READY_S, step_s=0.05)
        assert is_up, self.log_tail()

    def wait_ready(self) -> None:
        self.wait_listening()
        assert wait_until(self.is_ready, timeout_s=READY_S, step_s=0.1), self.log_tail()

    def is_ready(self) -> bool:
        return self._answers("/readyz")

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and JSON of one request with the stack's own key."""
        connection = json.loads((self.data_dir / "connection.json").read_text())
        request = urllib.request.Request(
            connection["url"] + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {connection['api_key']}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def submit(self, **fields: Any) -> str:
        """Return the id of a half second clip just accepted."""
        body = {"prompt": "a red ball", "duration": 0.5, "resolution": "480p", "cache": False}
        status, answer = self.call("POST", "/v1/t2v/generate", body | fields)
        assert status == 202, answer
        return str(answer["task_id"])

    def status(self, task_id: str) -> dict[str, Any]:
        status, answer = self.call("GET", f"/v1/t2v/status?task_id={task_id}")
        assert status == 200, answer
        return dict(answer)

    def wait_over(self, task_id: str, timeout_s: float = READY_S) -> dict[str, Any]:
        over = {"completed", "failed", "cancelled"}
        is_over = wait_until(
            lambda: self.status(task_id)["status"] in over, timeout_s=timeout_s, step_s=0.05
        )
        assert is_over, (self.status(task_id), self.log_tail())
        return self.status(task_id)

    def pid_of(self, role: str) -> int | None:
        """Return the living process in *role*, if there is one just now."""
        if role == "main":
            return self.process.pid if self.process.poll() is None else None
        below = descendants(self.process.pid)
        return next((pid for pid in below if ROLES[role] in command_line(pid)), None)

    def all_pids(self) -> set[int]:
        return {self.process.pid, *descendants(self.process.pid)}

    def kill(self, role: str) -> bool:
        """kill -9 the process in *role*; False when there is none just now."""
        pid = self.pid_of(role)
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        if role == "main":
            self.process.wait()
        return True

    def stop(self, timeout_s: float = READY_S) -> int:
        """Ctrl-C, once; return the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout_s)

    def _answers(self, path: str) -> bool:
        try:  # until it is up there is no file, or that of the last start, with another port
            return self.call("GET", path)[0] == 200
        except OSError:
            return False

    def log_tail(self) -> str:
        return "\n".join(self._log_path.read_text(errors="replace").splitlines()[-20:])
