"""A small HTTP/1.1 client for load: keep-alive connections, one request in flight on each.

`python -m bench.load PORT CONNECTIONS SECONDS` reads one JSON object from stdin, `{"requests":
[...]}` (each a list of method, path, headers, body), sends them round and round and prints what
came of it as JSON.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

WARM_S = 0.5


@dataclass
class Tally:
    """What came back. Latencies in seconds; `bodies` keeps the first thousand."""

    latencies: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    bodies: list[str] = field(default_factory=list)


class Connection(asyncio.Protocol):
    def __init__(self, wire: Iterator[bytes], tally: Tally, until: float, since: float) -> None:
        self._wire = wire
        self._tally = tally
        self._until = until
        self._since = since
        self._buffer = b""
        self._sent_at = 0.0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(next(self._wire))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        self._count(head, rest[:length])
        self._buffer = rest[length:]
        if time.perf_counter() >= self._until:
            self._transport.close()
        else:
            self._send()

    def _count(self, head: bytes, body: bytes) -> None:
        now = time.perf_counter()
        if now < self._since:
            return
        self._tally.latencies.append(now - self._sent_at)
        status = head[9:12].decode()
        self._tally.statuses[status] = self._tally.statuses.get(status, 0) + 1
        if len(self._tally.bodies) < 1000:
            self._tally.bodies.append(body.decode())

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


def on_wire(method: str, path: str, headers: dict[str, str], body: str) -> bytes:
    """Return one request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body.encode())}"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def drive(port: int, connections: int, seconds: float, requests: list[bytes]) -> Tally:
    """Send *requests* round and round; the first half second is not counted."""
    tally = Tally()
    since = time.perf_counter() + WARM_S
    loop, wire = asyncio.get_running_loop(), itertools.cycle(requests)
    opened = [
        await loop.create_connection(
            lambda: Connection(wire, tally, since + seconds, since), "127.0.0.1", port
        )
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.closed for _, protocol in opened))
    return tally


def main(port: str, connections: str, seconds: str) -> None:
    requests = [on_wire(*request) for request in json.load(sys.stdin)["requests"]]
    tally = asyncio.run(drive(int(port), int(connections), float(seconds), requests))
    ordered = sorted(tally.latencies)
    report = {
        "per_s": len(ordered) / float(seconds),
        "p50_ms": 1000 * ordered[len(ordered) // 2],
        "p99_ms": 1000 * ordered[int(len(ordered) * 0.99)],
        "statuses": tally.statuses,
        "bodies": tally.bodies,
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
