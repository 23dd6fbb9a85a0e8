"""Process control (Linux): nothing that a worker started outlives it, whatever kills it."""

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
STRAY_ROUNDS = 50
"""Each round ends one more generation of descendants; a fork bomb is not ours to win."""


class AlreadyRunning(Exception):
    """Another `vidmill up` holds the data folder."""


def _prctl(option: int, argument: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when the *thread* that started it ends.

    The parent may be gone already: then end at once, since no signal will come.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def become_subreaper() -> None:
    """Make orphaned descendants children of this process, so that `end_strays` finds them."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def give_back_memory() -> None:
    """Return the free pages of the heap to the kernel, where the C library can (glibc).

    Cached text embeddings lie between the large blocks of clips long gone: measured without this,
    300 clips of different prompts cost 190 MB, all of it free and none of it used again.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


@dataclass(frozen=True)
class Stat:
    """What `/proc/<pid>/stat` says (proc(5)).

    Attributes:
        start_ticks: Clock ticks after boot; with the pid it names a process for good.
    """

    pid: int
    parent: int
    group: int
    start_ticks: int


def stat(pid: int, *, is_dead_shown: bool = False) -> Stat | None:
    """Return what the kernel knows of *pid*, or None when it is gone, or a zombie not asked for."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold blanks
    if fields[0] in "ZX" and not is_dead_shown:
        return None
    return Stat(pid, int(fields[1]), int(fields[2]), int(fields[19]))


def all_processes(*, are_dead_shown: bool = False) -> list[Stat]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    found = (stat(pid, is_dead_shown=are_dead_shown) for pid in pids)
    return [one for one in found if one]


def kill_group(leader: int) -> None:
    """SIGKILL the process group that *leader* leads, if there still is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def end_strays(known: Collection[int]) -> int:
    """SIGKILL and reap every child of this process that is not *known*; return how many.

    Zombies count: nobody else waits for one that died before it came here. Orphans of a killed
    child arrive here (see `become_subreaper`), each with its own children behind it: hence the
    rounds.
    """
    me, ended = os.getpid(), 0
    for _ in range(STRAY_ROUNDS):
        everyone = all_processes(are_dead_shown=True)
        strays = [p.pid for p in everyone if p.parent == me and p.pid not in known]
        if not strays:
            break
        for pid in strays:
            kill_group(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            ended += 1
    return ended


@dataclass(frozen=True)
class Mark:
    """A process noted on disk."""

    pid: int
    start_ticks: int
    boot_id: str


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class PidFile:
    """Notes the processes of one tree, so that the next start can end what is left of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._boot_id = boot_id()

    def write(self, pids: Collection[int]) -> None:
        """Replace the noted processes by *pids*, atomically."""
        marks = [Mark(p.pid, p.start_ticks, self._boot_id) for p in map(stat, pids) if p]
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(mark) for mark in marks]))
        fresh.replace(self._path)

    def is_owner_alive(self) -> bool:
        """Whether the first one noted, who wrote the file, is alive."""
        marks = self._marks()
        return bool(marks) and _is_alive(marks[0])

    def end_leftovers(self, *, is_owner_spared: bool) -> list[int]:
        """SIGKILL what is still alive of the noted processes and their groups; return their pids.

        Args:
            is_owner_spared: Do nothing while the first one noted, who wrote the file, is alive.
        """
        mine = self._marks()
        if is_owner_spared and self.is_owner_alive():
            return []
        ended = [pid for mark in mine for pid in _end_group(mark)]
        self.remove()
        return ended

    def _marks(self) -> list[Mark]:
        try:
            marks = [Mark(**mark) for mark in json.loads(self._path.read_text())]
        except (FileNotFoundError, ValueError):
            return []
        return [mark for mark in marks if mark.boot_id == self._boot_id]

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def end_leftovers(run_dir: Path, *, are_owners_spared: bool) -> list[int]:
    """End what dead workers left running, by the pid files in *run_dir*; return the pids."""
    return [
        pid
        for path in sorted(run_dir.glob("*.pids"))
        for pid in PidFile(path).end_leftovers(is_owner_spared=are_owners_spared)
    ]


def living(run_dir: Path) -> set[str]:
    """Return the names of the workers with a pid file in *run_dir* whose process is alive."""
    return {path.stem for path in run_dir.glob("*.pids") if PidFile(path).is_owner_alive()}


def tidy_scratch(scratch_dir: Path, *, live: Collection[str]) -> None:
    """Delete what workers other than *live* were encoding; a killed one cannot do it itself."""
    for folder in scratch_dir.glob("*"):
        if folder.name not in live:
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(mark: Mark) -> bool:
    now = stat(mark.pid)
    return now is not None and now.start_ticks == mark.start_ticks


def _end_group(mark: Mark) -> list[int]:
    """End the group led by *mark*.

    A pid is not given out again while a group of that number lives, so a leader with another
    start time means that the whole group is gone.
    """
    leader = stat(mark.pid)
    if leader and leader.start_ticks != mark.start_ticks:
        return []
    members = [p.pid for p in all_processes() if mark.pid in (p.pid, p.group)]
    for pid in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return members


def take_lock(path: Path) -> int:
    """Lock *path* for as long as this process lives; return the descriptor to keep.

    Raises:
        AlreadyRunning: Another process has it; the message names it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
        os.close(descriptor)
        raise AlreadyRunning(
            f"Vidmill already runs on this data folder (process {owner}, lock {path}); "
            "stop it first, or choose another folder with --data-dir"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor
