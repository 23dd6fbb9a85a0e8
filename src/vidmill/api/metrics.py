"""`/metrics`: the one catalogue, what this process counts, and what the database says of all.

No label holds an id, a tenant or a prompt: a label's values are few, and known beforehand.
"""

import hmac
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from vidmill.domain.job import Job, JobState

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One metric. `name` carries its base unit."""

    kind: Kind
    name: str
    labels: Labels
    meaning: str


CATALOGUE = (
    Entry(
        "counter",
        "vidmill_http_requests_total",
        ("method", "route", "status"),
        "Requests answered; a route is a path with its parameters' names.",
    ),
    Entry(
        "histogram",
        "vidmill_http_request_seconds",
        ("route",),
        "From a request's head to the end of its answer; long polls and streams are not in it.",
    ),
    Entry("gauge", "vidmill_http_requests_in_flight", (), "Requests being worked on now."),
    Entry(
        "counter",
        "vidmill_http_requests_refused_total",
        (),
        "Requests answered 503 because as many as may be were being worked on.",
    ),
    Entry(
        "counter",
        "vidmill_http_requests_limited_total",
        ("limit",),
        "Requests answered 429 because a key or tenant sent too many: `submit`, `read`,"
        " `tenant-submit` or `tenant-read`.",
    ),
    Entry(
        "counter",
        "vidmill_http_requests_uncounted_total",
        (),
        "Requests let through uncounted, because the store of rate limits was silent.",
    ),
    Entry("gauge", "vidmill_watchers", (), "Open event streams, sockets, subscriptions and polls."),
    Entry(
        "counter",
        "vidmill_tasks_submitted_total",
        ("lane", "answer"),
        "Tasks accepted: `queued`, `following` an identical one, or `cached`.",
    ),
    Entry(
        "counter",
        "vidmill_webhook_attempts_total",
        ("outcome",),
        "Attempts at webhook deliveries: `delivered`, `failed` (tried again later), `given_up`.",
    ),
    Entry(
        "gauge",
        "vidmill_webhook_oldest_seconds",
        (),
        "How long the webhook delivery that is due longest has been due; 0 if none is.",
    ),
    Entry(
        "counter",
        "vidmill_storyboard_joins_total",
        ("outcome",),
        "Attempts to join the shots of a storyboard: `joined`, `failed` (tried again later),"
        " `given_up`, `dropped` (cancelled, changed or handed on meanwhile).",
    ),
    Entry(
        "counter",
        "vidmill_storyboard_join_seconds_total",
        ("outcome",),
        "How long these attempts took.",
    ),
    Entry("gauge", "vidmill_storyboards", ("state",), "Storyboards under way."),
    Entry(
        "gauge",
        "vidmill_storyboard_oldest_seconds",
        (),
        "Since when the storyboard that is not joined yet for longest has all its shots;"
        " 0 if none waits.",
    ),
    Entry("gauge", "vidmill_database_up", (), "1 if the database answered this scrape."),
    Entry("gauge", "vidmill_queue_depth", ("pool", "lane"), "Tasks that wait for a worker."),
    Entry(
        "gauge",
        "vidmill_queue_oldest_seconds",
        ("pool", "lane"),
        "How long the task that waits longest has waited; 0 if none does.",
    ),
    Entry("gauge", "vidmill_queue_gpu_seconds", ("pool",), "Expected GPU time of what waits."),
    Entry("gauge", "vidmill_workers", ("pool", "state"), "Workers whose lease holds."),
    Entry(
        "gauge",
        "vidmill_breaker_open",
        ("pool", "profile"),
        "1 while the pool rests because its engine failed, 0.5 while one task is tried.",
    ),
)
ENTRIES: Mapping[str, Entry] = {entry.name: entry for entry in CATALOGUE}

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, float("inf"))
"""Upper bounds: a poll takes a millisecond, a database that is away ten seconds."""

CONTENT_TYPE = CONTENT_TYPE_LATEST

Samples = Mapping[Labels, float]


@dataclass
class Meter:
    """What this process counts. For its event loop only, so plain numbers will do.

    Of the 400 µs of a poll these take 1.5; counters of prometheus_client, a lock each, take 12.
    """

    requests: defaultdict[Labels, int] = field(default_factory=lambda: defaultdict(int))
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    buckets: defaultdict[str, list[int]] = field(
        default_factory=lambda: defaultdict(lambda: [0] * len(BUCKETS_S))
    )
    submitted: defaultdict[Labels, int] = field(default_factory=lambda: defaultdict(int))
    limited: defaultdict[Labels, int] = field(default_factory=lambda: defaultdict(int))
    uncounted: int = 0

    def count_request(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count one answer; *seconds* None = it was a stream or a long poll."""
        self.requests[method, route, str(status)] += 1
        if seconds is None:
            return
        self.seconds[route] += seconds
        buckets = self.buckets[route]
        for index, bound in enumerate(BUCKETS_S):
            if seconds <= bound:
                buckets[index] += 1
                return

    def count_submit(self, job: Job) -> None:
        answer = _ANSWERS.get(job.state, "queued")
        self.submitted[job.lane.name.lower(), answer] += 1


_ANSWERS: Mapping[JobState, str] = {
    JobState.FOLLOWING: "following",
    JobState.SUCCEEDED: "cached",
}


def page(gauges: Mapping[str, Samples], meter: Meter) -> bytes:
    """Return the text of `/metrics`; *gauges* are samples by metric and labels."""
    registry = CollectorRegistry()
    registry.register(_Families([*_counted(meter), *_gauges(gauges)]))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def may_read(token: str, given: str | None, client: str) -> bool:
    """Whether whoever sent the Authorization header *given* from *client* may see the page."""
    if token:
        return hmac.compare_digest(f"bearer {token}".encode(), _scheme_folded(given or ""))
    return client in _LOOPBACK


_LOOPBACK = frozenset({"127.0.0.1", "::1"})


def _scheme_folded(authorization: str) -> bytes:
    scheme, _, rest = authorization.partition(" ")
    return f"{scheme.lower()} {rest.strip()}".encode("utf-8", "replace")


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _gauges(gauges: Mapping[str, Samples]) -> Iterable[Metric]:
    for name, samples in gauges.items():
        entry = ENTRIES[name]
        kind = CounterMetricFamily if entry.kind == "counter" else GaugeMetricFamily
        family = kind(name, entry.meaning, labels=entry.labels)
        for labels, value in samples.items():
            family.add_metric(labels, value)
        yield family


def _counted(meter: Meter) -> Iterable[Metric]:
    yield from _gauges(
        {
            "vidmill_http_requests_total": dict(meter.requests),
            "vidmill_http_requests_limited_total": dict(meter.limited),
            "vidmill_http_requests_uncounted_total": {(): meter.uncounted},
            "vidmill_tasks_submitted_total": dict(meter.submitted),
        }
    )
    entry = ENTRIES["vidmill_http_request_seconds"]
    family = HistogramMetricFamily(entry.name, entry.meaning, labels=entry.labels)
    for route, counts in meter.buckets.items():
        family.add_metric([route], _cumulated(counts), sum_value=meter.seconds[route])
    yield family


def _cumulated(counts: list[int]) -> list[tuple[str, float]]:
    total, found = 0, []
    for bound, count in zip(BUCKETS_S, counts, strict=True):
        total += count
        found.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
    return found
