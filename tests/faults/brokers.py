"""Faults of the broker: killed and wiped, blackholed, flooded. It carries only hints."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import redis
from sqlalchemy import text

from tests.faults.history import percentile
from tests.faults.proxy import Mode
from tests.faults.shared import Services, delete_queue
from tests.faults.stage import Stage, open_stage, pause
from tests.faults.verdict import Verdict
from vidmill.queueing.address import read_address
from vidmill.queueing.celery_app import new_app, queue_of
from vidmill.queueing.celery_transports import TRANSPORTS
from vidmill.store import places
from vidmill.store.routes import Route

OVER_S = 120.0
SUBMIT_MARGIN_S = 0.1
"""What the 99th percentile of submits may differ by between two halves of one quiet run."""


def _wipe_redis(stage: Stage) -> None:
    """kill -9 a server that keeps nothing, and start it again a second later."""
    stage.broker.kill()
    pause(1.0)
    stage.broker.start()


def _wipe_rabbitmq(stage: Stage) -> None:
    """Cut every connection for a second and delete the queue meanwhile, with all it holds."""
    assert stage.broker_proxy
    stage.broker_proxy.switch(Mode.RESET)
    settings = stage.settings
    delete_queue(settings.effective_queue_url, stage.broker_proxy.target, settings.pool)
    pause(1.0)
    stage.broker_proxy.switch(Mode.PASS)


WIPES: Mapping[str, Callable[[Stage], None]] = {"redis": _wipe_redis, "rabbitmq": _wipe_rabbitmq}


def broker_wiped(
    services: Services,
    *,
    broker: str,
    wipes: int,
    rate_per_s: float,
    apart_s: float = 4.0,
    calm_s: float = 10.0,
) -> Verdict:
    """The broker dies and forgets everything, again and again, while jobs pour in."""
    verdict = Verdict()
    with open_stage(services, broker=broker) as stage:
        calm = _calm(stage, rate_per_s, calm_s)
        load = stage.load(rate_per_s=rate_per_s)
        began = time.time()
        for _ in range(wipes):
            pause(apart_s / 2)
            WIPES[broker](stage)
            pause(apart_s / 2)
        load.stop()
        verdict.done = f"killed and wiped {wipes} times at {rate_per_s:g} submits/s"
        _judge(verdict, stage, calm=calm, began=began)
    return verdict


def broker_blackholed(
    services: Services,
    *,
    broker: str,
    seconds: float,
    rate_per_s: float,
    calm_s: float = 10.0,
) -> Verdict:
    """The broker accepts connections and never answers."""
    verdict = Verdict()
    with open_stage(services, broker=broker) as stage:
        assert stage.broker_proxy
        calm = _calm(stage, rate_per_s, calm_s)
        load = stage.load(rate_per_s=rate_per_s)
        began = time.time()
        stage.broker_proxy.switch(Mode.BLACKHOLE)
        pause(seconds)
        stage.broker_proxy.switch(Mode.PASS)
        pause(2.0)
        load.stop()
        verdict.done = f"blackholed for {seconds:g} s at {rate_per_s:g} submits/s"
        longest = max(o.seconds for o in stage.history.of("submit") if o.invoked_at >= began)
        verdict.hold("longest submit", longest, at_most=1.0, unit="s")
        _judge(verdict, stage, calm=calm, began=began)
    return verdict


def _calm(stage: Stage, rate_per_s: float, seconds: float) -> float:
    """Return the time before which all was quiet, once the same load has run in quiet."""
    stage.serve(2)
    stage.hire(6)
    pause(1.0)  # until they listen
    load = stage.load(rate_per_s=rate_per_s)
    pause(seconds)
    load.stop()
    return time.time()


def _judge(verdict: Verdict, stage: Stage, *, calm: float, began: float) -> None:
    verdict.require(stage.wait_over(OVER_S), "not all jobs ended")
    before, during = _delays(stage, 0, calm), _delays(stage, began, 9e9)
    verdict.hold(
        f"start delay p99 {percentile(before, 0.99):.2f} s in quiet, extra",
        percentile(during, 0.99) - percentile(before, 0.99),
        at_most=3.0,
        unit="s",
    )
    submits = stage.history.of("submit", "ok")
    quiet = percentile([o.seconds for o in submits if o.invoked_at < calm], 0.99)
    faulty = percentile([o.seconds for o in submits if o.invoked_at >= began], 0.99)
    verdict.hold(
        f"submit p99 {quiet * 1000:.0f} ms in quiet, with the fault",
        faulty * 1000,
        at_most=1000 * (2 * quiet + SUBMIT_MARGIN_S),
        unit="ms",
    )
    answers = stage.history.statuses("submit")
    verdict.require(set(answers) == {202}, f"answers to submits: {dict(answers)}")
    verdict.expect_all_succeeded(stage)
    verdict.judge(stage)


def _delays(stage: Stage, since: float, until: float) -> list[float]:
    rows = stage.rows(
        "SELECT a.started_at - j.submitted_at FROM jobs j JOIN attempts a ON a.job_id = j.id"
        " WHERE a.attempt = 1 AND j.submitted_at BETWEEN :since AND :until",
        since=since,
        until=until,
    )
    return [float(row[0]) for row in rows]


def ticket_storm(services: Services, *, broker: str, jobs: int, storm: int) -> Verdict:
    """Twenty tickets for each job, then far more tickets than there are jobs."""
    verdict = Verdict()
    with open_stage(services, broker=broker) as stage:
        stage.serve()
        stage.hire(4)
        client = stage.client()
        for _ in range(jobs):
            client.submit()
            send_raw(stage, 20)
        verdict.require(stage.wait_over(OVER_S), "not all jobs ended")
        look_ms, bare_ms = (percentile(taken, 0.5) for taken in empty_looks_ms(stage))
        verdict.hold(
            f"empty look p50 {look_ms:.2f} ms, in reads of nothing",
            look_ms / bare_ms,
            at_most=5,
        )
        began = time.time()
        STORMS[broker](stage, storm)
        sent_s = time.time() - began
        for _ in range(20):
            client.submit()
            pause(0.05)
        verdict.require(stage.wait_over(OVER_S), "not all jobs ended in the storm")
        verdict.done = f"{jobs} jobs with 20 tickets each, then {storm} tickets in {sent_s:.1f} s"
        verdict.hold(
            "start delay p99 in the storm",
            percentile(_delays(stage, began, 9e9), 0.99),
            at_most=stage.settings.poll_s * 1.25 + 1,
            unit="s",
        )
        runs = stage.rows("SELECT count(*) FROM attempts")[0][0]
        verdict.hold("runs beyond one per job", runs - jobs - 20, at_most=0)
        verdict.expect_all_succeeded(stage)
        verdict.judge(stage)
    return verdict


def send_raw(stage: Stage, count: int, *, pool: str = "") -> None:
    """Send tickets past the sender's own bound, as a broker that repeats itself would."""
    address = read_address(stage.settings.effective_queue_url)
    app = new_app(address)
    pool = pool or stage.settings.pool
    queue = queue_of(address, pool)
    with app.connection_for_write() as connection:
        producer = app.amqp.Producer(connection, auto_declare=False)
        for _ in range(count):
            app.send_task(
                "vidmill.tick", args=(pool,), queue=queue, declare=(),
                producer=producer, retry=False,
            )  # fmt: skip


def _storm_redis(stage: Stage, count: int) -> None:
    """Put copies of one ticket where a worker takes them from: a client library is too slow."""
    with redis.Redis(port=stage.broker.port) as client:
        copies = [_ticket_seen(stage, client)] * 1000
        for _ in range(count // len(copies)):
            client.lpush(_list_name(stage), *copies)


def _ticket_seen(stage: Stage, client: redis.Redis) -> bytes:
    """Return a ticket as it lies in the queue, from a queue that nobody serves."""
    idle = f"{stage.settings.pool}-idle"
    send_raw(stage, 1, pool=idle)
    (found,) = client.keys(f"*{idle}")
    ticket = cast("bytes", client.lindex(found, 0))
    return ticket.replace(idle.encode(), stage.settings.pool.encode())


def _list_name(stage: Stage) -> str:
    address = read_address(stage.settings.effective_queue_url)
    prefix = TRANSPORTS[address.scheme].prefix_option and f"{address.prefix}."
    return f"{prefix}{queue_of(address, stage.settings.pool).name}"


STORMS: Mapping[str, Callable[[Stage, int], None]] = {
    "redis": _storm_redis,
    "rabbitmq": send_raw,
}


def empty_looks_ms(stage: Stage, tries: int = 200) -> tuple[list[float], list[float]]:
    """Return what looking for work costs where there is none, and a bare read; milliseconds each.

    They take turns, so that other work on the machine slows both.
    """
    routes = [Route(pool=stage.settings.pool)]
    taken: tuple[list[float], list[float]] = ([], [])
    acts: Sequence[Callable[[], object]] = (
        lambda: stage.db.read(lambda conn: places.pools_with_work(conn, routes, stage.db.now())),
        lambda: stage.db.read(lambda conn: conn.execute(text("SELECT 1")).scalar()),
    )
    for _ in range(tries):
        for act, times in zip(acts, taken, strict=True):
            began = time.perf_counter()
            act()
            times.append(1000 * (time.perf_counter() - began))
    return taken
