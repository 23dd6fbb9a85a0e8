"""The processes of a farm, as a test holds them."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.servers import free_port, mortal

START_S = 60.0
"""Far above what a start takes, for a machine that does other things as well."""


@dataclass(kw_only=True)
class Worker:
    """A worker's process; `name` is what the database knows it by."""

    name: str
    process: Any
    log_path: Path

    @property
    def is_alive(self) -> bool:
        return bool(self.process.is_alive())

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def log(self) -> list[dict[str, Any]]:
        """Return what it said so far, as far as it is JSON."""
        lines = self.log_path.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


class Replica:
    """`vidmill serve` in a process of its own."""

    def __init__(self, env: Mapping[str, str], log_path: Path) -> None:
        self.port = free_port()
        self.log_path = log_path
        command = [sys.executable, "-m", "vidmill", "serve", "--port", str(self.port)]
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=env,
                stdout=log,
                stderr=log,
                preexec_fn=mortal(),  # noqa: PLW1509  a system call and nothing else
            )

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/livez", timeout=2):
                return True
        except (OSError, urllib.error.HTTPError):
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; return the exit status."""
        self.process.terminate()
        return self.process.wait(START_S)

    def log_tail(self) -> str:
        return "\n".join(self.log_path.read_text().splitlines()[-15:])
