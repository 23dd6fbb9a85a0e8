"""The threads of a process that serves: API, deliverer, joiner, and the controller if any."""

import os
import random
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import uvicorn

from vidmill.api.callbacks import Callbacks
from vidmill.api.desk import Desk
from vidmill.api.dialects.native_batch_views import batch_doc
from vidmill.api.dialects.native_storyboard_views import storyboard_doc
from vidmill.api.dialects.native_views import status_doc
from vidmill.api.serving import BACKLOG, make_server, share_interpreter
from vidmill.domain.clip import Asset
from vidmill.domain.job import RetryPolicy
from vidmill.services.batch_keeping import BatchKeeper
from vidmill.services.calibration import Calibrator
from vidmill.services.controller import Controller, ControllerTimes
from vidmill.services.delivering import Deliverer
from vidmill.services.erasure import Erasure, Leftovers
from vidmill.services.forecast import Forecast
from vidmill.services.storyboard_keeping import StoryboardKeeper
from vidmill.settings import Settings
from vidmill.stack.joining import new_joiner
from vidmill.wiring import App, CannotStart


class Front:
    """Started once, closed once, from the main thread. The caller closes *app* and *listener*."""

    def __init__(self, app: App, listener: socket.socket, *, controller: Controller | None) -> None:
        self._listener = listener
        self._controller = controller
        self._stop = threading.Event()
        self._server: uvicorn.Server = make_server(app)
        self._deliverer = new_deliverer(app, url_of(listener))
        self._joiner = new_joiner(app)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        share_interpreter()
        self._threads = [
            threading.Thread(
                target=self._server.run, kwargs={"sockets": [self._listener]}, name="api"
            ),
            threading.Thread(target=self._deliverer.run, args=(self._stop,), name="deliverer"),
            threading.Thread(target=self._joiner.run, args=(self._stop,), name="joiner"),
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
        chores=[
            Leftovers(Erasure(db=app.db, blobs=app.blobs)).erase_some,
            BatchKeeper(db=app.db, bus=app.bus, tickets=app.tickets).tend,
            StoryboardKeeper(db=app.db, bus=app.bus, tickets=app.tickets).tend,
        ],
    )


def new_deliverer(app: App, base_url: str) -> Deliverer:
    """Return who delivers webhooks; their links lead to *base_url* where no public URL is set."""
    desk = Desk.of(app)

    def find_batch(public_id: str, tenant_id: int) -> dict[str, Any] | None:
        view = desk.batches.find(public_id, tenant_id)
        return None if view is None else batch_doc(view)

    def find_storyboard(
        public_id: str, tenant_id: int, url_of: Callable[[Asset], str]
    ) -> dict[str, Any] | None:
        view = desk.storyboards.find(public_id, tenant_id)
        expires_at = desk.links.expires_at()
        return None if view is None else storyboard_doc(view, url_of, expires_at=expires_at)

    callbacks = Callbacks(
        db=app.db,
        tasks=desk.tasks,
        links=desk.links,
        base_url=app.settings.public_url or base_url,
        task_doc=status_doc,
        batch_doc=find_batch,
        storyboard_doc=find_storyboard,
    )
    return Deliverer(replace(desk.webhooks.courier, render=callbacks.render))


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
