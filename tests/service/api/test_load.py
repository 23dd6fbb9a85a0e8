"""A surge: what is beyond the limit is refused quickly, and nothing is lost or doubled."""

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.callers import make_caller
from tests.desks import KEY, Bench, Served, database_url, make_bench
from tests.servers import Server
from vidmill.api.desk import Desk
from vidmill.domain.order import Order
from vidmill.store import jobs
from vidmill.store.session import UnitOfWork

GENERATE = "/v1/t2v/generate"


@contextmanager
def serving(bench: Bench) -> Iterator[Served]:
    server = Server(bench)
    try:
        yield Served(bench=bench, port=server.port)
    finally:
        server.stop()
        bench.close()


async def ask(port: int, method: str, path: str, body: str = "") -> tuple[int, dict[str, str], Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n{body}".encode())
    answer = (await reader.read()).decode()
    writer.close()
    lines, _, text = answer.partition("\r\n\r\n")
    first, *rest = lines.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    return int(first.split()[1]), headers, json.loads(text) if text else None


def submits(port: int, count: int) -> list[tuple[int, dict[str, str], Any]]:
    async def all_at_once() -> list[tuple[int, dict[str, str], Any]]:
        bodies = [json.dumps({"prompt": f"ball {number}"}) for number in range(count)]
        return await asyncio.gather(*(ask(port, "POST", GENERATE, body) for body in bodies))

    return asyncio.run(all_at_once())


def hold_writer(bench: Bench, seconds: float) -> threading.Thread:
    """Keep the database's writer busy; its lock is taken when this returns."""
    is_held = threading.Event()

    def hold(_uow: UnitOfWork) -> None:
        is_held.set()
        time.sleep(seconds)

    thread = threading.Thread(target=lambda: bench.app.db.write(hold))
    thread.start()
    assert is_held.wait(5)
    return thread


def test_a_thousand_submits_at_once_are_all_queued_exactly_once(tmp_path: Path) -> None:
    with serving(make_bench(tmp_path)) as served:
        answers = submits(served.port, 1000)
        count = served.bench.app.db.read(lambda conn: len(jobs.page(conn, 1, limit=2000)))

    assert Counter(status for status, _, _ in answers) == {202: 1000}
    assert len({doc["task_id"] for _, _, doc in answers}) == count == 1000


@pytest.mark.sqlite
def test_beyond_the_limit_requests_are_refused_at_once_and_probes_are_not(tmp_path: Path) -> None:
    with serving(make_bench(tmp_path, requests_max=20)) as served:
        held = hold_writer(served.bench, 2.0)
        began = time.monotonic()

        async def surge() -> tuple[list[Any], list[tuple[float, int]]]:
            bodies = [json.dumps({"prompt": f"ball {number}"}) for number in range(200)]
            waiting = [
                asyncio.create_task(ask(served.port, "POST", GENERATE, body)) for body in bodies
            ]
            await asyncio.sleep(0.5)
            probes = []
            for path in ("/livez", "/readyz", "/metrics"):
                status, _ = await ask_text(served.port, path)
                probes.append((time.monotonic() - began, status))
            return await asyncio.gather(*waiting), probes

        answers, probes = asyncio.run(surge())
        held.join()
        count = served.bench.app.db.read(lambda conn: len(jobs.page(conn, 1, limit=300)))

    statuses = Counter(status for status, _, _ in answers)
    assert statuses == {202: 20, 503: 180}
    refused = [(headers, doc) for status, headers, doc in answers if status == 503]
    assert all(int(headers["retry-after"]) > 0 for headers, _ in refused)
    assert {(doc["code"], doc["retryable"]) for _, doc in refused} == {
        ("service_unavailable", True)
    }
    assert count == 20
    assert all(at_s < 1.8 for at_s, _ in probes)  # while the writer was held
    assert [status for _, status in probes] == [200, 503, 200]  # no worker is ready


async def ask_text(port: int, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split()[1]), answer


def test_watching_takes_no_place_from_those_who_submit(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, requests_max=5)
    task_id = bench.generate()["task_id"]
    with serving(bench) as served:

        async def surge() -> int:
            path = f"/v1/t2v/status?task_id={task_id}&wait=3"
            polls = [asyncio.create_task(ask(served.port, "GET", path)) for _ in range(5)]
            await asyncio.sleep(0.5)
            polls += [asyncio.create_task(ask(served.port, "GET", path)) for _ in range(5)]
            await asyncio.sleep(0.5)
            status, _, _ = await ask(served.port, "POST", GENERATE, '{"prompt": "x"}')
            await asyncio.gather(*polls)
            return status

        assert asyncio.run(surge()) == 202


def test_with_ten_thousand_queued_a_submit_is_as_quick(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, cap_queued=20_000)
    desk = Desk.of(bench.app)
    orders = [Order(prompt=f"an earlier ball {number}") for number in range(10_000)]
    bench.app.db.write(desk.submission.accept_many(orders, make_caller(1)))
    with serving(bench) as served:
        answers = submits(served.port, 200)

    assert Counter(status for status, _, _ in answers) == {202: 200}
    assert answers[0][2]["queue_position"] >= 10_000


def test_a_broker_that_is_frozen_slows_no_submit(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as frozen_broker:  # never answers
        port = frozen_broker.getsockname()[1]
        bench = make_bench(tmp_path, broker_url=f"redis://127.0.0.1:{port}/0")
        with serving(bench) as served:
            took = []
            for number in range(20):
                began = time.monotonic()
                status, _, _ = asyncio.run(
                    ask(served.port, "POST", GENERATE, f'{{"prompt": "ball {number}"}}')
                )
                took.append((status, time.monotonic() - began < 1.0))

    assert took == [(202, True)] * 20


@pytest.mark.postgresql
def test_a_frozen_database_freezes_no_probe_and_is_said_within_bounds(tmp_path: Path) -> None:
    """Stands in for a server that stopped: a lock on the tables, taken elsewhere."""
    bench = make_bench(tmp_path)
    with serving(bench) as served, frozen(bench):

        async def meanwhile() -> tuple[list[Any], float, tuple[int, str]]:
            submits = [
                asyncio.create_task(ask(served.port, "POST", GENERATE, '{"prompt": "x"}'))
                for _ in range(30)
            ]
            await asyncio.sleep(0.3)
            began = time.monotonic()
            alive = await ask_text(served.port, "/livez")
            took_s = time.monotonic() - began
            return await asyncio.gather(*submits), took_s, alive

        began = time.monotonic()
        answers, probe_s, alive = asyncio.run(meanwhile())
        took_s = time.monotonic() - began

    assert (alive[0], probe_s < 0.5) == (200, True)
    assert Counter(status for status, _, _ in answers) == {503: 30}
    assert all("retry-after" in headers for _, headers, _ in answers)
    assert took_s < 25


@contextmanager
def frozen(bench: Bench) -> Iterator[None]:
    """Lock the tables that every request needs, from another connection."""
    with psycopg.connect(database_url(bench.folder)) as conn:
        conn.execute("LOCK TABLE api_keys, jobs, tenants IN ACCESS EXCLUSIVE MODE")
        yield
        conn.rollback()
