"""Every fault there is a drill for: its number in the plan, how long, how short."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults import brokers, databases, kills, races, soak, whole
from tests.faults.shared import Services
from tests.faults.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Drill:
    """One fault, on one choice of broker and database.

    Attributes:
        number: In the plan; several drills may share one.
        short, long: Sizes, as keywords of *run*; `short` None = only in the long form.
        scaled: Names of the sizes that `--scale` multiplies.
    """

    number: int
    name: str
    run: Callable[..., Verdict]
    long: Mapping[str, Any]
    short: Mapping[str, Any] | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    scaled: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        return f"{self.number}-{self.name.replace(' ', '-').replace(',', '')}"

    def sizes(self, *, is_short: bool, scale: float = 1.0) -> dict[str, Any]:
        chosen = self.short if is_short else self.long
        assert chosen is not None, "it has no short form"
        grown = {name: type(chosen[name])(chosen[name] * scale) for name in self.scaled}
        return {**self.fixed, **chosen, **({} if is_short else grown)}

    def play(self, services: Services, *, is_short: bool, scale: float = 1.0) -> Verdict:
        return self.run(services, **self.sizes(is_short=is_short, scale=scale))


RABBITMQ = {"broker": "rabbitmq"}
NO_BROKER = {"broker": "local"}
SQLITE = {"broker": "local", "database": "sqlite"}

DRILLS = (
    Drill(
        number=1,
        name="workers killed, Redis",
        run=kills.random_kills,
        short={"jobs": 200, "workers": 4},
        long={"jobs": 10_000, "workers": 8},
        scaled=("jobs",),
    ),
    Drill(
        number=1,
        name="workers killed, RabbitMQ",
        run=kills.random_kills,
        fixed=RABBITMQ,
        short={"jobs": 100, "workers": 3, "rate_per_s": 15.0},
        long={"jobs": 800, "workers": 6, "rate_per_s": 20.0},
        scaled=("jobs",),
    ),
    Drill(
        number=1,
        name="workers killed, no broker",
        run=kills.random_kills,
        fixed=NO_BROKER,
        long={"jobs": 800, "workers": 6, "rate_per_s": 20.0},
        scaled=("jobs",),
    ),
    Drill(
        number=1,
        name="workers killed, no broker, SQLite",
        run=kills.random_kills,
        fixed=SQLITE,
        short={"jobs": 100, "workers": 3, "rate_per_s": 15.0},
        long={"jobs": 800, "workers": 6, "rate_per_s": 20.0},
        scaled=("jobs",),
    ),
    Drill(
        number=2,
        name="render child killed",
        run=whole.child_killed,
        short={"kills": 2},
        long={"kills": 12},
        scaled=("kills",),
    ),
    Drill(
        number=3,
        name="workers frozen past their lease",
        run=kills.frozen_workers,
        short={"freezes": 1},
        long={"freezes": 8},
        scaled=("freezes",),
    ),
    Drill(
        number=3,
        name="supervisors frozen, children not",
        run=whole.frozen_supervisor,
        short={"freezes": 1},
        long={"freezes": 5},
        scaled=("freezes",),
    ),
    Drill(
        number=4,
        name="Redis killed and wiped",
        run=brokers.broker_wiped,
        fixed={"broker": "redis"},
        short={"wipes": 1, "rate_per_s": 15.0, "calm_s": 4.0},
        long={"wipes": 3, "rate_per_s": 40.0},
    ),
    Drill(
        number=4,
        name="RabbitMQ cut off and wiped",
        run=brokers.broker_wiped,
        fixed=RABBITMQ,
        long={"wipes": 3, "rate_per_s": 40.0},
    ),
    Drill(
        number=5,
        name="Redis blackholed",
        run=brokers.broker_blackholed,
        fixed={"broker": "redis"},
        short={"seconds": 4.0, "rate_per_s": 15.0, "calm_s": 4.0},
        long={"seconds": 60.0, "rate_per_s": 25.0},
    ),
    Drill(
        number=5,
        name="RabbitMQ blackholed",
        run=brokers.broker_blackholed,
        fixed=RABBITMQ,
        long={"seconds": 30.0, "rate_per_s": 25.0},
    ),
    Drill(
        number=6,
        name="PostgreSQL crashes",
        run=databases.database_restarts,
        short={"restarts": 1, "rate_per_s": 15.0, "apart_s": 2.0},
        long={"restarts": 4, "rate_per_s": 40.0},
        scaled=("restarts",),
    ),
    Drill(
        number=7,
        name="one worker cut off from the database",
        run=kills.cut_off,
        long={"lease_s": 20.0, "cut_s": 60.0},
    ),
    Drill(
        number=8,
        name="leader killed, two leaders",
        run=databases.leader_killed,
        long={"kills": 3, "jobs": 400},
        scaled=("kills", "jobs"),
    ),
    Drill(
        number=9,
        name="duplicate tickets and a storm, Redis",
        run=brokers.ticket_storm,
        fixed={"broker": "redis"},
        short={"jobs": 20, "storm": 1000},
        long={"jobs": 100, "storm": 100_000},
    ),
    Drill(
        number=9,
        name="duplicate tickets and a storm, RabbitMQ",
        run=brokers.ticket_storm,
        fixed=RABBITMQ,
        long={"jobs": 50, "storm": 5000},
    ),
    Drill(
        number=10,
        name="API killed between commit and ticket",
        run=databases.killed_before_ticket,
        short={"times": 2},
        long={"times": 15},
        scaled=("times",),
    ),
    Drill(
        number=11,
        name="disk full, artifacts",
        run=whole.artifact_disk_full,
        long={"times": 4},
        scaled=("times",),
    ),
    Drill(
        number=11,
        name="disk full, SQLite",
        run=whole.sqlite_disk_full,
        short={"times": 1},
        long={"times": 5},
        scaled=("times",),
    ),
    Drill(
        number=12,
        name="hard limit with grandchildren",
        run=whole.hard_limit,
        short={"times": 1},
        long={"times": 4},
        scaled=("times",),
    ),
    Drill(
        number=13,
        name="cancels racing completions",
        run=races.cancel_storm,
        short={"cancels": 80},
        long={"cancels": 1000},
        scaled=("cancels",),
    ),
    Drill(
        number=13,
        name="cancels racing completions, SQLite",
        run=races.cancel_storm,
        fixed=SQLITE,
        long={"cancels": 1000},
        scaled=("cancels",),
    ),
    Drill(
        number=14,
        name="one tenant owns half",
        run=races.one_owns_half,
        short={"tenants": 8, "each": 8},
        long={"tenants": 50, "each": 20},
    ),
    Drill(
        number=17,
        name="rolling deploy",
        run=kills.rolling_deploy,
        short={"jobs": 60, "rounds": 1, "workers": 2},
        long={"jobs": 800, "rounds": 2},
        scaled=("jobs", "rounds"),
    ),
    Drill(
        number=18,
        name="soak",
        run=soak.soak,
        long={"seconds": 60.0, "rate_per_s": 25.0},
        scaled=("seconds",),
    ),
)
