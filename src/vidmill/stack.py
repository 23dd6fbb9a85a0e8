"""`vidmill up`: the process tree of one machine.

This process is the API and the controller; its child is the supervisor, whose children render and
finish. Nothing here is precious: kill any of them, and the next start goes on from the database.
"""

import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import SecretStr

from vidmill import wiring
from vidmill.api.app import create_app
from vidmill.domain.errors import VidmillError
from vidmill.domain.job import RetryPolicy
from vidmill.profiles import load_profile, resolve_source
from vidmill.services.access import hash_key
from vidmill.services.controller import Controller, ControllerTimes
from vidmill.settings import Settings
from vidmill.store import accounts, migrate, workers
from vidmill.store.session import UnitOfWork
from vidmill.store.workers import WorkerState
from vidmill.telemetry import get_logger
from vidmill.worker.loop import EventLoop
from vidmill.worker.proc import become_subreaper, end_leftovers, end_strays, kill_group, take_lock

log = get_logger(__name__)

TENANT = "default"
RESTART_S = 0.5
"""First wait before the supervisor is started again; doubles up to the cap."""
RESTART_CAP_S = 30.0
STEADY_S = 60.0
"""A supervisor that lived this long starts the back-off anew."""
CLOSE_S = 5.0
"""How long open answers (event streams) may go on once the workers have ended."""
STUCK_S = 30.0
"""A supervisor that is not gone this long after its drain should be over is killed."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What a client needs; `connection.json` in the data folder."""

    url: str
    api_key: str


class CannotStart(Exception):
    """Something the person who starts it can mend; the message says how."""


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
        end_leftovers(settings.run_dir, are_owners_spared=False)
        shutil.rmtree(settings.scratch_dir, ignore_errors=True)
        become_subreaper()
        migrate.upgrade(settings.effective_database_url)
        listener = _listen(settings)
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
        self._stop = threading.Event()
        self._server: uvicorn.Server | None = None
        self._threads: list[threading.Thread] = []
        self._controller = _controller(app)
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
        self._start_threads()
        self._callbacks.on_listening(connection)
        self._await_ready()
        self._loop.every(lambda: 1.0, self._check_threads)

    def _start_threads(self) -> None:
        config = uvicorn.Config(
            create_app(self._app),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(CLOSE_S),
        )
        self._server = uvicorn.Server(config)
        self._threads = [
            threading.Thread(
                target=self._server.run, kwargs={"sockets": [self._listener]}, name="api"
            ),
            threading.Thread(target=self._controller.run, args=(self._stop,), name="controller"),
        ]
        for thread in self._threads:
            thread.start()

    def _check_threads(self) -> None:
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
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
        """Forget the workers of an earlier start, and queue again what they were running."""
        db, host = self._app.db, socket.gethostname()

        def drop(uow: UnitOfWork) -> None:
            for worker in workers.on_host(uow.conn, host):
                workers.drop(uow, worker.id)

        db.write(drop)
        swept = self._controller.start(live=())
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
        end_leftovers(self._settings.run_dir, are_owners_spared=False)
        end_strays(known=())  # what a killed supervisor could not end any more
        is_steady = self._loop.now() - self._started_at > STEADY_S
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
        if self._server:
            self._server.should_exit = True
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._loop.close()


def _controller(app: wiring.App) -> Controller:
    settings = app.settings
    return Controller(
        app.db,
        app.tickets,
        app.bus,
        pools=[settings.pool],
        policy=RetryPolicy(base_s=settings.retry_base_s, cap_s=settings.retry_cap_s),
        times=ControllerTimes(
            sweep_s=settings.sweep_s,
            promote_s=settings.promote_s,
            reconcile_s=settings.reconcile_s,
            audit_s=settings.audit_s,
            time_limit_s=settings.time_limit_s,
        ),
        rng=random.Random(),
        name=f"c_{secrets.token_hex(8)}",
    )


def settings_json(settings: Settings) -> str:
    """Return *settings* for a child's stdin, secrets in clear: a pipe, not the environment."""

    def plain(value: Any) -> Any:
        return value.get_secret_value() if isinstance(value, SecretStr) else value

    return json.dumps({k: plain(v) for k, v in settings.model_dump().items()}, default=str)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:  # its text already names the address in some versions of Python
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise CannotStart(
            f"cannot listen on {settings.host} port {settings.port}: {reason}; choose another"
            " with --host or --port (0 = any free port)"
        ) from error
    listener.set_inheritable(False)
    return listener


def connect(app: wiring.App, listener: socket.socket) -> Connection:
    """Write `connection.json` with the URL and a key that works; an old key that does is kept."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    shown = f"[{reachable}]" if ":" in reachable else reachable
    path = app.settings.data_dir / "connection.json"
    key = _working_key(app, path) or _new_key(app)
    connection = Connection(url=f"http://{shown}:{port}", api_key=key)
    _write_private(path, json.dumps({"url": connection.url, "api_key": connection.api_key}))
    return connection


def _working_key(app: wiring.App, path: Path) -> str | None:
    try:
        key = str(json.loads(path.read_text())["api_key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return key if app.db.read(lambda conn: accounts.find_key(conn, hash_key(key))) else None


def _new_key(app: wiring.App) -> str:
    key = f"vm_{secrets.token_urlsafe(32)}"

    def write(uow: UnitOfWork) -> None:
        tenant = accounts.ensure_tenant(uow, TENANT, cap_queued=app.settings.queue_max)
        accounts.create_key(uow, tenant.id, "made by vidmill up", hash_key(key))

    app.db.write(write)
    return key


def _write_private(path: Path, text: str) -> None:
    """Replace *path* atomically, readable by its owner alone from the first byte on."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
