"""The threads of a process that serves: the API, and the controller if it has one."""

import os
import random
import secrets
import socket
import threading

import uvicorn

from vidmill.api.serving import BACKLOG, make_server, share_interpreter
from vidmill.domain.job import RetryPolicy
from vidmill.services.calibration import Calibrator
from vidmill.services.controller import Controller, ControllerTimes
from vidmill.services.forecast import Forecast
from vidmill.settings import Settings
from vidmill.wiring import App, CannotStart


class Front:
    """Started once, closed once, from the main thread. The caller closes *app* and *listener*."""

    def __init__(self, app: App, listener: socket.socket, *, controller: Controller | None) -> None:
        self._listener = listener
        self._controller = controller
        self._stop = threading.Event()
        self._server: uvicorn.Server = make_server(app)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        share_interpreter()
        self._threads = [
            threading.Thread(
                target=self._server.run, kwargs={"sockets": [self._listener]}, name="api"
            )
        ]
        if self._controller:
            self._threads.append(
                threading.Thread(target=self._controller.run, args=(self._stop,), name="controller")
            )
        for thread in self._threads:
            thread.start()

    def dead(self) -> list[str]:
        """Return the names of threads that ended though nobody asked them to."""
        return [thread.name for thread in self._threads if not thread.is_alive()]

    def close(self) -> None:
        """End open answers within `CLOSE_S` and hand on the leader's lease."""
        self._server.should_exit = True
        self._stop.set()
        for thread in self._threads:
            thread.join()


def new_controller(app: App) -> Controller:
    """Return a controller as the settings want it, under a name nobody had before."""
    settings = app.settings
    forecast = Forecast(app.db, profile=app.profile, pool=settings.pool, clock=app.clock)
    calibrator = Calibrator(db=app.db, forecast=forecast, rng=random.Random())
    return Controller(
        app.db,
        app.tickets,
        app.bus,
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
        calibrate=calibrator.step,
    )


def listen(settings: Settings) -> socket.socket:
    """Return the API's listening socket.

    Raises:
        CannotStart: The address is not to be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    address = (settings.host, settings.port)
    try:
        listener = socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:  # its text already names the address in some versions of Python
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise CannotStart(
            f"cannot listen on {settings.host} port {settings.port}: {reason}; choose another"
            " with --host or --port (0 = any free port)"
        ) from error
    listener.set_inheritable(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL by which this machine reaches *listener*."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    shown = f"[{reachable}]" if ":" in reachable else reachable
    return f"http://{shown}:{port}"
