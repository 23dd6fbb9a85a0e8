"""deploy/compose.yaml without containers: its very commands as processes, on real servers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import databases
from tests.brokers import free_port, shared_redis
from tests.e2e.stacks import QUICK_ENV
from tests.waiting import wait_until
from vidmill.client import ClipRequest, Vidmill

COMPOSE = Path(__file__).parents[2] / "deploy" / "compose.yaml"
READY_S = 90.0

pytestmark = pytest.mark.e2e


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """What compose gives each service, with this test's servers in place of its own."""
    databases.choose("postgresql")
    url = databases.empty_database(tmp_path)
    named = yaml.safe_load(COMPOSE.read_text())["services"]["worker"]["environment"]
    with shared_redis(tmp_path) as broker:
        here = {
            "VIDMILL_DATABASE_URL": url,
            "VIDMILL_BROKER_URL": broker,
            "VIDMILL_STORAGE_URL": (tmp_path / "files").as_uri(),
            "VIDMILL_DATA_DIR": str(tmp_path / "data"),
            "VIDMILL_SIGNING_SECRET": "the same for all",
            "VIDMILL_PUBLIC_URL": "",
            "VIDMILL_PROFILE": "tiny",
            "VIDMILL_HOST": "127.0.0.1",
        }
        ours = {key: str(value) for key, value in named.items() if key.startswith("VIDMILL_")}
        assert set(here) <= set(ours)
        yield {**os.environ, **QUICK_ENV, **ours, **here}
    databases.choose("sqlite")


def command_of(service: str) -> list[str]:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    return [sys.executable, "-m", "vidmill", *services[service]["command"]]


@contextlib.contextmanager
def running(service: str, environment: dict[str, str], log: Path, **changes: str) -> Iterator[Any]:
    """Run a service's command until the block ends, then ask it to stop: it must exit 0."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command_of(service), env={**environment, **changes}, stdout=file, stderr=file
        )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()[-2000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def admin(environment: dict[str, str], *arguments: str) -> Any:
    command = [sys.executable, "-m", "vidmill", "admin", *arguments, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_clip_ordered_at_one_replica_is_fetched_from_the_other(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    subprocess.run(command_of("migrate"), env=environment, check=True, stdout=subprocess.DEVNULL)
    admin(environment, "tenant", "set", "acme")
    key = admin(environment, "key", "create", "acme")["api_key"]
    ports = [free_port(), free_port()]
    with contextlib.ExitStack() as stack:
        for name, port in zip(("serve-1", "serve-2"), ports, strict=True):
            log = tmp_path / f"{name}.log"
            stack.enter_context(running(name, environment, log, VIDMILL_PORT=str(port)))
        stack.enter_context(running("worker", environment, tmp_path / "worker.log"))
        one, other = (
            stack.enter_context(Vidmill(f"http://127.0.0.1:{port}", key)) for port in ports
        )
        assert wait_until(lambda: is_ready(ports), timeout_s=READY_S, step_s=0.2)
        order = ClipRequest(prompt="a red ball on a blue background", duration_s=0.5)
        task = one.submit(order)
        clip = tmp_path / "clip.mp4"
        other.wait(task, timeout_s=READY_S).save(clip)
        assert clip.stat().st_size > 1000
        again = other.submit(order)
        assert (again.status, again.cached) == ("completed", True)


def is_ready(ports: list[int]) -> bool:
    try:
        for port in ports:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
    except OSError:
        return False
    return True
