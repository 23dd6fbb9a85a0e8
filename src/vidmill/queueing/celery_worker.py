"""A Celery worker in a thread, behind an inbox that a loop can select on.

Celery's worker program owns a process: its signals, its root logger, its pool. Here is only what
lies below: the `WorkController` with the solo pool, which runs the task in the thread that reads
from the broker. Gossip, mingle, events and remote control stay out, for each is one more
connection, and after a lost broker one more way to be connected and deaf.

The loop that reads is our own, the same on every transport: Kombu's event loop is one per process
and cannot be woken from another thread.
"""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from celery.bootsteps import RUN
from celery.exceptions import Reject, WorkerShutdown
from celery.utils.threads import bound_open_broker_sockets
from celery.worker import WorkController
from celery.worker.consumer import Consumer

from vidmill.queueing.celery_app import TICK, connect_once
from vidmill.queueing.slot import Slot
from vidmill.telemetry import get_logger

log = get_logger(__name__)

logging.getLogger("celery.app.trace").setLevel(logging.ERROR)  # it warns of each handed back ticket

DRAIN_S = 0.1
"""How long one look at the broker lasts, and so how late a change of mind may come."""

RETRY_S = 1.0
"""Wait before a broker that is away is tried again."""

CLOSE_S = 1.9
"""How long `close` waits. A thread that hangs on a frozen broker even then dies with us."""

LAST_WORDS_S = 0.2
"""How long a broker may take over each farewell."""


class Steering:
    """What the supervisor's thread wants of the worker's."""

    def __init__(self) -> None:
        self.is_paused = False
        self.closing = threading.Event()

    def check(self) -> None:
        if self.closing.is_set():
            raise WorkerShutdown(0)

    def rest(self) -> None:
        self.closing.wait(RETRY_S * random.uniform(0.5, 1.5))


class CeleryInbox:
    """Tickets that a worker of its own takes from the broker."""

    def __init__(self, open_app: Callable[[], Any], worker: str) -> None:
        self._open_app = open_app
        self._worker = worker
        self._slot: Slot[str] = Slot()
        self._steering = Steering()
        self._thread = threading.Thread(target=self._run, name=f"tickets-{worker}", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        return self._slot.fileno()

    def take(self) -> list[str]:
        return self._slot.take()

    def pause(self) -> None:
        self._steering.is_paused = True
        self._slot.take()

    def resume(self) -> None:
        self._steering.is_paused = False

    def close(self) -> None:
        self._steering.closing.set()
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            log.warning("ticket_thread_left", worker=self._worker)
        self._slot.close()

    def _run(self) -> None:
        """Be a worker until closed. One that gave up on an error of its transport is replaced."""
        while not self._steering.closing.is_set():
            try:
                self._serve()
            except Exception as error:  # noqa: BLE001  every transport has errors of its own
                log.warning("ticket_worker_failed", worker=self._worker, error=repr(error))
            self._steering.rest()

    def _serve(self) -> None:
        app = self._open_app()
        app.set_current()  # of this thread alone; the pool asks for it
        app.task(self._tick, name=TICK, shared=False)
        worker = TicketWorker(app, self._steering, self._worker)
        worker.start()
        app.close()

    def _tick(self, pool: str) -> None:
        if self._steering.is_paused:
            raise Reject(reason="this worker is busy", requeue=True)
        self._slot.put(pool)


class TicketWorker(WorkController):  # type: ignore[misc]  # Celery has no types
    def __init__(self, app: Any, steering: Steering, name: str) -> None:
        self.steering = steering
        super().__init__(
            app,
            hostname=f"{name}@vidmill",
            consumer_cls=TicketConsumer,
            use_eventloop=False,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )


class TicketConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """Reads from the broker until the steering says otherwise."""

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]  # Celery has no types
        """Connect, take tasks, loop. Left out is also the delayed delivery of quorum queues."""

        default_steps = (
            "celery.worker.consumer.connection:Connection",
            "celery.worker.consumer.tasks:Tasks",
            "celery.worker.consumer.consumer:Evloop",
        )

    def ensure_connected(self, conn: Any) -> Any:
        """Try for as long as it takes, so that a broker may be away for a day."""
        steering: Steering = self.controller.steering
        is_first = True
        while True:
            steering.check()
            try:
                connect_once(conn)
            except (*conn.connection_errors, OSError) as error:
                if is_first:
                    log.warning("broker_away", worker=self.hostname, error=str(error))
                is_first = False
                with contextlib.suppress(Exception):
                    conn.close()
                steering.rest()
            else:
                return conn

    def connection_for_read(self, heartbeat: int | None = None) -> Any:  # noqa: ARG002
        """Return a connection with heartbeats, which Celery asks for under its own loop only."""
        beat = self.app.conf.broker_heartbeat
        return self.ensure_connected(self.app.connection_for_read(heartbeat=beat))

    def call_soon_ack(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Acknowledge now, and have the connection broken if that fails.

        Celery only logs it, counts the ticket as unfinished for ever, and with a prefetch of one
        takes no other: connected and deaf.
        """
        p(*args, **kwargs)
        self.is_deaf = not p.__self__.acknowledged

    def loop(self, *_: Any) -> None:
        """Stand in for Celery's loops; returning or raising makes Celery connect anew."""
        tickets = self.task_consumer
        tickets.on_message = self.create_task_handler()
        is_listening = self.is_deaf = False
        next_beat = time.monotonic()
        while self.blueprint.state == RUN and self.connection:
            self._heed_closing()
            is_wanted = not self.controller.steering.is_paused
            if is_wanted != is_listening:
                (tickets.consume if is_wanted else tickets.cancel)()
                is_listening = is_wanted
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + self._beat(self.connection)
            self.perform_pending_operations()
            with contextlib.suppress(TimeoutError):
                self.connection.drain_events(timeout=DRAIN_S)
            if self.is_deaf:
                raise ConnectionResetError("a ticket could not be acknowledged")

    def _heed_closing(self) -> None:
        steering: Steering = self.controller.steering
        if steering.closing.is_set():
            bound_open_broker_sockets(self.connection, LAST_WORDS_S)
        steering.check()

    def _beat(self, connection: Any) -> float:
        """Check the broker's heartbeat, if it has one; return when to do so again."""
        interval_s = connection.get_heartbeat_interval()
        if not interval_s:
            return 3600.0
        connection.heartbeat_check(2)
        return float(interval_s) / 2
