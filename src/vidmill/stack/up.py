"""`vidmill up`: the process tree of one machine.

This process is the API and the controller; its child is the supervisor, whose children render and
finish. Nothing here is precious: kill any of them, and the next start goes on from the database.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from vidmill import wiring
from vidmill.domain.errors import VidmillError
from vidmill.profiles import load_profile, resolve_source
from vidmill.settings import Settings
from vidmill.stack.front import Front, listen, new_controller
from vidmill.stack.keys import Connection, connect
from vidmill.store import migrate, workers
from vidmill.store.session import UnitOfWork
from vidmill.store.workers import WorkerState
from vidmill.telemetry import get_logger
from vidmill.wiring import CannotStart
from vidmill.worker import proc
from vidmill.worker.loop import EventLoop
from vidmill.worker.proc import become_subreaper, end_leftovers, end_strays, kill_group, take_lock
from vidmill.worker.supervisor import EXIT_UNFIT

log = get_logger(__name__)

RESTART_S = 0.5
"""First wait before the supervisor is started again; doubles up to the cap."""
RESTART_CAP_S = 30.0
STEADY_S = 60.0
"""A supervisor that lived this long starts the back-off anew."""
STUCK_S = 30.0
"""A supervisor that is not gone this long after its drain should be over is killed."""


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Called from the main thread: the API answers; the model is warm; it was asked to stop.

    `on_stopping` is told whether running clips are finished first (else they are handed back).
    """

    on_listening: Callable[[Connection], None] = lambda _: None
    on_ready: Callable[[], None] = lambda: None
    on_stopping: Callable[[bool], None] = lambda _: None


def run_up(settings: Settings, callbacks: Callbacks | None = None) -> int:
    """Run everything until a signal; return the exit status. Main thread only.

    The first SIGINT or SIGTERM drains (`drain_s`), the second hands running jobs back at once.

    Raises:
        AlreadyRunning: Another one holds the data folder.
        CannotStart: The profile, the model, the data folder or the port is not to be had.
    """
    _check_model(settings)
    lock = _take_folder(settings)
    try:
        end_leftovers(settings.run_dir, are_owners_spared=True)
        proc.tidy_scratch(settings.scratch_dir, live=proc.living(settings.run_dir))
        become_subreaper()
        migrate.upgrade(settings.effective_database_url)
        listener = listen(settings)
        app = wiring.build(settings)
        try:
            return _Tree(app, listener, callbacks or Callbacks()).run()
        finally:
            app.close()
            listener.close()
    finally:
        os.close(lock)


def _check_model(settings: Settings) -> None:
    """Refuse what no waiting mends; a damaged folder is found, and waited for, by the worker."""
    try:
        source = Path(resolve_source(load_profile(settings.profile), settings.model_path))
    except LookupError as error:
        raise CannotStart(f"{error.args[0]} (--profile or VIDMILL_PROFILE)") from error
    except ValueError as error:
        raise CannotStart(f"{error}; mend the file, or choose another with --profile") from error
    if source.is_absolute() and not source.is_dir():
        raise CannotStart(
            f"there is no model folder {source}; name one with --model-path or VIDMILL_MODEL_PATH"
        )


def _take_folder(settings: Settings) -> int:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)  # prompts are private
        settings.run_dir.mkdir(exist_ok=True, mode=0o700)
        return take_lock(settings.run_dir / "lock")
    except OSError as error:
        raise CannotStart(
            f"the data folder {settings.data_dir} cannot be used: {error.strerror}; make it a"
            " folder you can write, or choose another with --data-dir"
        ) from error


class _Tree:
    """The threads and the child of this process."""

    def __init__(self, app: wiring.App, listener: socket.socket, callbacks: Callbacks) -> None:
        self._app = app
        self._settings = app.settings
        self._callbacks = callbacks
        self._listener = listener
        self._loop = EventLoop()
        self._controller = new_controller(app)
        self._front = Front(app, listener, controller=self._controller)
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._deaths = 0
        self._started_at = 0.0
        self._signals = 0
        self._status: int | None = None

    def run(self) -> int:
        try:
            self._start()
            while self._status is None:
                self._loop.run_once()
        finally:
            self._close()
        return self._status

    def _start(self) -> None:
        self._loop.on_signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), self._on_signal)
        self._take_over()
        self._start_supervisor()  # first: loading the model takes longest
        connection = connect(self._app, self._listener)
        self._front.start()
        self._callbacks.on_listening(connection)
        self._await_ready()
        self._loop.every(lambda: 1.0, self._check_threads)

    def _check_threads(self) -> None:
        dead = self._front.dead()
        if dead and not self._signals:
            log.critical("thread_died", threads=dead)
            self._status = 1

    def _await_ready(self) -> None:
        if self._is_worker_ready():
            self._callbacks.on_ready()
        else:
            self._loop.after(0.2, self._await_ready)

    def _is_worker_ready(self) -> bool:
        db = self._app.db
        try:
            live = db.read(lambda conn: workers.all_workers(conn, now=db.now()))
        except VidmillError:  # the database is away; it will be asked again
            return False
        return any(worker.state is WorkerState.READY for worker in live)

    # The supervisor.

    def _take_over(self) -> None:
        """Forget the workers of an earlier start, and queue again what they were running.

        A database in the data folder is ours alone; of a server's, other hosts' workers live on.
        """
        db = self._app.db
        known = db.read(lambda conn: workers.on_host(conn, socket.gethostname()))
        live = proc.living(self._settings.run_dir)  # `vidmill worker` on the same data folder
        gone = [w for w in known if w.id not in live]
        dead = [w.id for w in gone if not db.is_remote or proc.stat(w.pid) is None]

        def drop(uow: UnitOfWork) -> None:
            for worker in dead:
                workers.drop(uow, worker)

        db.write(drop)
        controller = self._controller
        swept = controller.join(dead=dead) if db.is_remote else controller.start(live=live)
        log.info("taken_over", runs=len(swept))

    def _start_supervisor(self) -> None:
        """Start it from this thread, which lives as long as the process: see `proc.die_with`."""
        command = [sys.executable, "-m", "vidmill.worker", "--settings-stdin"]
        self._supervisor = subprocess.Popen(  # noqa: S603  our own module
            [*command, "--parent", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=sys.stderr.fileno(),
            start_new_session=True,
        )
        self._started_at = self._loop.now()
        assert self._supervisor.stdin is not None
        with self._supervisor.stdin as stdin:
            stdin.write(settings_json(self._settings).encode())
        pidfd = os.pidfd_open(self._supervisor.pid)
        self._loop.watch(pidfd, lambda: self._on_supervisor_exit(pidfd))

    def _on_supervisor_exit(self, pidfd: int) -> None:
        assert self._supervisor is not None
        self._loop.forget(pidfd)
        os.close(pidfd)
        status, self._supervisor = self._supervisor.wait(), None
        if self._signals:
            self._status = 0
            return
        log.error("supervisor_ended", status=status)
        end_leftovers(self._settings.run_dir, are_owners_spared=True)
        end_strays(known=())  # what a killed supervisor could not end any more
        lived_s = self._loop.now() - self._started_at
        is_steady = lived_s > STEADY_S and status != EXIT_UNFIT  # loading may take a minute too
        self._deaths = 1 if is_steady else self._deaths + 1
        delay_s = min(RESTART_CAP_S, RESTART_S * 2.0 ** (self._deaths - 1))
        self._loop.after(delay_s, self._restart_supervisor)

    def _restart_supervisor(self) -> None:
        if self._signals:
            return
        try:
            self._take_over()
        except VidmillError as error:  # the database is away
            log.warning("take_over_failed", error=str(error))
            self._loop.after(RESTART_CAP_S, self._restart_supervisor)
            return
        self._start_supervisor()

    # The end.

    def _on_signal(self) -> None:
        self._signals += 1
        if self._supervisor is None:
            self._status = 0
            return
        is_draining = self._signals == 1
        log.info("stopping", is_draining=is_draining)
        self._callbacks.on_stopping(is_draining)
        self._supervisor.send_signal(signal.SIGTERM)
        wait_s = STUCK_S + (self._settings.drain_s if is_draining else 0.0)
        self._loop.after(wait_s, self._kill_supervisor)

    def _kill_supervisor(self) -> None:
        if self._supervisor:
            log.error("supervisor_stuck")
            kill_group(self._supervisor.pid)

    def _close(self) -> None:
        if self._supervisor:  # something failed here: else it has ended by itself
            kill_group(self._supervisor.pid)
            self._supervisor.wait()
        self._front.close()
        self._loop.close()


def settings_json(settings: Settings) -> str:
    """Return *settings* for a child's stdin, secrets in clear: a pipe, not the environment."""

    def plain(value: Any) -> Any:
        return value.get_secret_value() if isinstance(value, SecretStr) else value

    return json.dumps({k: plain(v) for k, v in settings.model_dump().items()}, default=str)
