"""Process control against real processes: what must die dies, and nothing else does."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until
from vidmill.worker import proc

WAIT_S = 10.0

STUBBORN_FAMILY = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
if os.fork() == 0:
    {escape}
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(600)
os.write(1, b"%d\\n" % os.getpid())
time.sleep(600)
"""
"""A process that ignores SIGTERM, with a child that does too; each prints its pid."""


@pytest.fixture
def spawned() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        proc.kill_group(process.pid)
        process.communicate()


def start(spawned: list[subprocess.Popen[str]], program: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    spawned.append(process)
    return process


def read_pids(process: subprocess.Popen[str], count: int) -> list[int]:
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(count)]


def are_gone(pids: list[int]) -> bool:
    return wait_until(lambda: not any(proc.stat(p) for p in pids), timeout_s=WAIT_S)


def test_stat_names_a_process_for_good_even_with_blanks_in_its_name() -> None:
    me = proc.stat(os.getpid())
    assert me is not None
    assert (me.pid, me.parent, me.group) == (os.getpid(), os.getppid(), os.getpgrp())
    assert me.start_ticks > 0
    assert proc.stat(2**22 + 1) is None


def test_killed_group_takes_a_grandchild_that_ignores_sigterm(
    spawned: list[subprocess.Popen[str]],
) -> None:
    family = start(spawned, STUBBORN_FAMILY.format(escape="pass"))
    pids = read_pids(family, 2)
    family.send_signal(signal.SIGTERM)
    assert all(proc.stat(pid) for pid in pids)
    proc.kill_group(family.pid)
    assert are_gone(pids)


def test_strays_that_left_the_group_are_found_through_the_subreaper(
    spawned: list[subprocess.Popen[str]],
) -> None:
    family = STUBBORN_FAMILY.format(escape="os.setsid()")
    reaper = start(
        spawned,
        f"""
        import os, subprocess, sys, time
        from vidmill.worker import proc
        proc.become_subreaper()
        bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        child = subprocess.Popen([sys.executable, "-c", {family!r}], stdout=subprocess.PIPE)
        pids = [int(child.stdout.readline()) for _ in range(2)]
        proc.kill_group(child.pid)  # no group of its own: nothing happens
        child.kill()
        child.wait()
        ended = proc.end_strays({{bystander.pid}})
        print(ended, [bool(proc.stat(p)) for p in pids], bool(proc.stat(bystander.pid)))
        bystander.kill()
        """,
    )
    assert reaper.stdout is not None
    assert reaper.stdout.read().strip() == "1 [False, False] True"


def test_stray_that_was_dead_before_it_came_is_reaped(
    spawned: list[subprocess.Popen[str]],
) -> None:
    reaper = start(
        spawned,
        """
        import os, subprocess, sys, time
        from pathlib import Path
        from vidmill.worker import proc
        proc.become_subreaper()
        family = "import os; pid = os.fork() or os._exit(0); print(pid)"
        child = subprocess.run([sys.executable, "-c", family], stdout=subprocess.PIPE)
        ended = proc.end_strays(known=())
        print(ended, Path(f"/proc/{int(child.stdout)}").exists())
        """,
    )
    assert reaper.stdout is not None
    assert reaper.stdout.read().strip() == "1 False"


def test_process_dies_with_its_parent(spawned: list[subprocess.Popen[str]]) -> None:
    child = "import os,sys,time; from vidmill.worker import proc; proc.die_with(int(sys.argv[1]));"
    child += "os.write(1, b'%d\\n' % os.getpid()); time.sleep(600)"
    parent = start(
        spawned,
        f"""
        import os, subprocess, sys, time
        subprocess.Popen([sys.executable, "-c", {child!r}, str(os.getpid())],
                         start_new_session=True)
        time.sleep(600)
        """,
    )
    pids = read_pids(parent, 1)
    parent.kill()
    assert are_gone(pids)


def test_process_whose_parent_died_before_it_could_ask_ends_itself() -> None:
    program = "from vidmill.worker import proc; proc.die_with(999999999); print('alive')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, b"")


def test_leftovers_of_a_dead_owner_are_ended_with_their_groups(
    spawned: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    family = start(spawned, STUBBORN_FAMILY.format(escape="pass"))
    pids = read_pids(family, 2)
    owner = start(spawned, "import time; time.sleep(600)")
    proc.PidFile(tmp_path / "w.pids").write([owner.pid, family.pid])
    assert proc.end_leftovers(tmp_path, are_owners_spared=True) == []
    owner.kill()
    owner.wait()
    assert sorted(proc.end_leftovers(tmp_path, are_owners_spared=True)) == sorted(pids)
    assert are_gone(pids)
    assert list(tmp_path.iterdir()) == []


def test_leftover_group_whose_leader_is_gone_is_ended(
    spawned: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    family = start(spawned, STUBBORN_FAMILY.format(escape="pass"))
    pids = read_pids(family, 2)
    proc.PidFile(tmp_path / "w.pids").write([family.pid])
    os.kill(family.pid, signal.SIGKILL)
    family.wait()
    assert proc.end_leftovers(tmp_path, are_owners_spared=False) != []
    assert are_gone(pids)


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "another boot"}])
def test_innocent_process_with_a_recycled_pid_is_spared(
    spawned: list[subprocess.Popen[str]], tmp_path: Path, change: dict[str, object]
) -> None:
    innocent = start(spawned, "import time; time.sleep(600)")
    path = tmp_path / "w.pids"
    proc.PidFile(path).write([innocent.pid])
    path.write_text(json.dumps([{**json.loads(path.read_text())[0], **change}]))
    assert proc.end_leftovers(tmp_path, are_owners_spared=False) == []
    assert proc.stat(innocent.pid)


def test_second_holder_of_the_lock_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    descriptor = proc.take_lock(tmp_path / "lock")
    with pytest.raises(proc.AlreadyRunning, match=f"process {os.getpid()}.*--data-dir"):
        proc.take_lock(tmp_path / "lock")
    os.close(descriptor)
    os.close(proc.take_lock(tmp_path / "lock"))
