"""`vidmill serve`: the API, and a controller that leads or stands by; any number of them."""

import signal
from collections.abc import Callable

from vidmill import wiring
from vidmill.settings import Settings
from vidmill.stack.front import Front, listen, new_controller, url_of
from vidmill.telemetry import get_logger
from vidmill.wiring import CannotStart
from vidmill.worker.loop import EventLoop

log = get_logger(__name__)


def run_serve(
    settings: Settings,
    *,
    has_controller: bool = True,
    on_listening: Callable[[str], None] = lambda _url: None,
) -> int:
    """Serve until a signal; return the exit status. Main thread only.

    Args:
        settings: Those of every replica, but for host and port.
        has_controller: Whether this process may lead.
        on_listening: Told the URL.

    Raises:
        CannotStart: The schema, the signing secret or the address is not as it must be.
        ServiceUnavailable: The database cannot be asked now.
    """
    wiring.check_schema(settings)
    _check_secret(settings)
    listener = listen(settings)
    app = wiring.build(settings)
    front = Front(app, listener, controller=new_controller(app) if has_controller else None)
    try:
        return _run(front, on_listening=lambda: on_listening(url_of(listener)))
    finally:
        app.close()
        listener.close()


def _run(front: Front, *, on_listening: Callable[[], None]) -> int:
    loop = EventLoop()
    status: list[int] = []

    def on_signal() -> None:
        log.info("stopping")
        status.append(0)

    def check() -> None:
        if dead := front.dead():
            log.critical("thread_died", threads=dead)
            status.append(1)

    loop.on_signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), on_signal)
    front.start()
    on_listening()
    loop.every(lambda: 1.0, check)
    try:
        while not status:
            loop.run_once()
    finally:
        front.close()
        loop.close()
    return status[0]


def _check_secret(settings: Settings) -> None:
    """Refuse replicas that would not accept each other's links and cursors."""
    is_shared = not settings.effective_database_url.startswith("sqlite")
    if is_shared and not settings.signing_secret.get_secret_value():
        raise CannotStart(
            "replicas of a shared database must sign alike: set VIDMILL_SIGNING_SECRET to the same"
            " random text for all of them, for instance what `openssl rand -hex 32` prints"
        )
