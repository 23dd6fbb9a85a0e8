"""The Celery application: one task that takes no time, and queues named after the pools."""

from collections.abc import Sequence
from typing import Any

from celery import Celery
from kombu import Queue

from vidmill.queueing.address import Address
from vidmill.queueing.celery_transports import CALL_S, TRANSPORTS

TICK = "vidmill.tick"

EXPIRY_S = 60
"""Nobody waits for a ticket any longer: every idle worker has polled long since."""


def queue_of(address: Address, pool: str) -> Queue:
    """Return the queue of *pool*, reached without an exchange: who sends need declare nothing."""
    name = f"{address.prefix}.{pool}"
    arguments = dict(TRANSPORTS[address.scheme].queue)
    return Queue(name, exchange="", routing_key=name, queue_arguments=arguments)


def new_app(address: Address, pools: Sequence[str] = ()) -> Any:
    """Return an application of its own, which no other code of the process sees."""
    transport = TRANSPORTS[address.scheme]
    options = dict(transport.options)
    if transport.prefix_option:
        options[transport.prefix_option] = f"{address.prefix}."
    app = Celery("vidmill", set_as_current=False, fixups=(), config_source=None)
    app.conf.update(
        broker_url=address.url,
        broker_transport=transport.cls or None,
        broker_transport_options=options,
        broker_connection_timeout=CALL_S,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_heartbeat=transport.heartbeat_s,
        task_queues=[queue_of(address, pool) for pool in pools],
        task_default_exchange=address.prefix,
        task_create_missing_queues=False,
        task_acks_late=True,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_publish_retry=False,
        result_backend=None,
        accept_content=["json"],
        worker_pool="solo",
        worker_concurrency=1,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=True,
    )
    return app


def connect_once(connection: Any) -> None:
    """Connect now or raise; Kombu's own `connect` sleeps two seconds and tries again."""
    connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
