"""`vidmill up` as a tree of processes: start, faults, and the end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stacks import Stack
from tests.tiny_random import shared_tiny_random, tiny_random_env
from tests.waiting import wait_until
from vidmill.worker.proc import stat

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    return shared_tiny_random(tmp_path_factory, worker_id)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack") / "data", tiny_random_env(model))
    with stack:
        stack.wait_ready()
        yield stack
        tree = stack.all_pids()
        assert stack.stop() == 0
        assert wait_until(lambda: not any(stat(pid) for pid in tree), timeout_s=30)


@pytest.fixture
def stack(shared: Stack) -> Stack:
    assert wait_until(shared.is_ready, timeout_s=60), shared.log_tail()
    return shared


def test_connection_file_is_private_and_its_key_works(stack: Stack) -> None:
    assert (stack.data_dir / "connection.json").stat().st_mode & 0o777 == 0o600
    assert stack.call("GET", "/v1/t2v/tasks")[0] == 200


def test_second_start_on_the_same_folder_is_refused_with_the_remedy(stack: Stack) -> None:
    again = subprocess.run(
        [sys.executable, "-m", "vidmill", "up", "--data-dir", str(stack.data_dir), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert again.returncode != 0
    assert str(stack.process.pid) in again.stderr
    assert "--data-dir" in again.stderr
    assert stack.is_ready()


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"VIDMILL_PROFILE": "tinny"}, "VIDMILL_PROFILE"),
        ({"VIDMILL_MODEL_PATH": "/nowhere/model"}, "VIDMILL_MODEL_PATH"),
        ({"VIDMILL_DATA_DIR": "/dev/null/data"}, "--data-dir"),
        ({"VIDMILL_PORT": "many"}, "port"),
    ],
)
def test_start_that_cannot_be_is_refused_in_one_line_with_the_remedy(
    tmp_path: Path, wrong: dict[str, str], remedy: str
) -> None:
    stack = Stack(tmp_path / "data", wrong)
    stack.start()
    assert stack.process.wait(60) != 0
    (line,) = stack.log_tail().splitlines()
    assert line.startswith("error: ")
    assert remedy in line


def test_taken_port_is_said_plainly_and_leaves_nothing_running(tmp_path: Path, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        again = Stack(tmp_path / "data", {**tiny_random_env(model), "VIDMILL_PORT": port})
        again.start()
        assert again.process.wait(60) != 0
    line = again.log_tail().splitlines()[-1]
    assert line.startswith(f"error: cannot listen on 127.0.0.1 port {port}")
    assert "--port" in line
    assert not list((again.data_dir / "run").glob("*.pids"))


@pytest.mark.parametrize(
    "role",
    [
        "render child",
        pytest.param("finish child", marks=pytest.mark.long),
        pytest.param("supervisor", marks=pytest.mark.long),
    ],
)
def test_process_that_is_killed_while_idle_is_replaced(stack: Stack, role: str) -> None:
    before = stack.pid_of(role)
    assert stack.kill(role)
    assert wait_until(lambda: stack.pid_of(role) not in {None, before}, timeout_s=60)
    assert wait_until(stack.is_ready, timeout_s=60, step_s=0.1), stack.log_tail()
    assert stack.wait_over(stack.submit())["status"] == "completed"


def test_cancel_storm_ends_every_task_one_way_or_the_other(stack: Stack) -> None:
    tasks = [stack.submit() for _ in range(20)]

    def cancel(task_id: str) -> None:
        assert stack.call("POST", f"/v1/t2v/tasks/{task_id}/cancel")[0] in {200, 202, 409}

    threads = [threading.Thread(target=cancel, args=(task,)) for task in tasks for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = [stack.wait_over(task)["status"] for task in tasks]
    assert set(ended) <= {"completed", "cancelled"}
    assert stack.wait_over(stack.submit())["status"] == "completed"


def test_killed_main_process_takes_the_tree_along_and_the_work_goes_on(stack: Stack) -> None:
    connection = stack.data_dir / "connection.json"
    key = json.loads(connection.read_text())["api_key"]
    tasks = [stack.submit() for _ in range(3)]
    tree = stack.all_pids()
    assert len(tree) >= 4
    stack.kill("main")
    assert wait_until(lambda: not any(stat(pid) for pid in tree), timeout_s=30)
    stack.start()
    stack.wait_listening()
    assert json.loads(connection.read_text())["api_key"] == key
    assert {stack.wait_over(task)["status"] for task in tasks} == {"completed"}


def test_ctrl_c_in_a_terminal_finishes_the_running_clip_and_serves_meanwhile(stack: Stack) -> None:
    task = stack.submit(duration=10)
    assert wait_until(lambda: stack.status(task)["status"] == "processing", timeout_s=30)
    os.killpg(stack.process.pid, signal.SIGINT)  # what the terminal does
    assert stack.status(task)["status"] == "processing"
    assert stack.process.wait(60) == 0
    assert "Ctrl-C again" in stack.log_tail()
    stack.start()
    stack.wait_listening()
    after = stack.status(task)
    assert (after["status"], after["attempt"]) == ("completed", 1)


def test_damaged_model_folder_is_named_by_readyz_and_the_api_still_takes_orders(
    tmp_path: Path, model: Path
) -> None:
    broken = tmp_path / "model"
    shutil.copytree(model, broken)
    weights = next((broken / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    stack = Stack(tmp_path / "data", tiny_random_env(broken))

    def said() -> str:
        return str(stack.call("GET", "/readyz")[1])

    with stack:
        stack.wait_listening()
        assert wait_until(lambda: weights.name in said(), timeout_s=60, step_s=0.1), said()
        assert "model_invalid" in said()
        assert not stack.is_ready()
        task = stack.submit()
        assert stack.status(task)["status"] == "queued"
        assert stack.stop() == 0
