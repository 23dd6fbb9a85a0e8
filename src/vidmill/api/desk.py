"""What every handler needs, made once from the composition root's App."""

from dataclasses import dataclass
from typing import Self

from vidmill.api.auth import Gate
from vidmill.api.following import Following, Glances
from vidmill.api.links import FileLinks
from vidmill.api.load import Load
from vidmill.api.metrics import Meter
from vidmill.api.waiting import Reads
from vidmill.domain.clip import Resolution
from vidmill.domain.errors import FieldProblem
from vidmill.domain.order import Limits, Order, problems
from vidmill.domain.pricing import Tariff
from vidmill.services.access import find_caller
from vidmill.services.forecast import Forecast
from vidmill.services.fullness import Fullness
from vidmill.services.submission import Submission
from vidmill.services.tasks import Tasks
from vidmill.settings import Settings
from vidmill.wiring import App


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The services behind the routes, and what this process counts and bounds."""

    app: App
    gate: Gate
    limits: Limits
    submission: Submission
    tasks: Tasks
    reads: Reads
    glances: Glances
    following: Following
    load: Load
    meter: Meter
    links: FileLinks

    def check(self, order: Order) -> list[FieldProblem]:
        return problems(order, self.limits, self.app.profile)

    @classmethod
    def of(cls, app: App) -> Self:
        settings = app.settings
        limits = limits_of(settings)
        forecast = Forecast(app.db, profile=app.profile, pool=settings.pool, clock=app.clock)
        reads = Reads(app.db, threads=settings.database_connections)
        tasks = Tasks(
            db=app.db, bus=app.bus, tickets=app.tickets, blobs=app.blobs, forecast=forecast
        )
        return cls(
            app=app,
            gate=Gate(lambda key_hash: find_caller(app.db, key_hash), reads=reads, clock=app.clock),
            limits=limits,
            submission=submission_of(app, forecast, limits),
            tasks=tasks,
            reads=reads,
            glances=Glances(tasks, reads),
            following=Following(tasks, reads, watchers_max=settings.watchers_max),
            load=Load(requests_max=settings.requests_max),
            meter=Meter(),
            links=FileLinks(
                blobs=app.blobs,
                secret=app.signing_secret,
                ttl_s=settings.link_ttl_s,
                public_url=settings.public_url,
                clock=app.clock,
            ),
        )


def submission_of(app: App, forecast: Forecast, limits: Limits) -> Submission:
    """Return the desk that takes orders, at the operator's prices and limits."""
    settings = app.settings
    return Submission(
        db=app.db,
        tickets=app.tickets,
        forecast=forecast,
        fullness=Fullness(app.db, queue_total_max=settings.queue_total_max, clock=app.clock),
        limits=limits,
        profile=app.profile,
        pool=settings.pool,
        tariff=Tariff(
            credits_per_s={
                Resolution.P480: settings.price_480p_credits_per_s,
                Resolution.P720: settings.price_720p_credits_per_s,
            }
        ),
        cache_ttl_s=settings.cache_ttl_s,
        max_attempts=settings.max_attempts,
    )


def limits_of(settings: Settings) -> Limits:
    """Return the limits at the door, as the operator set them."""
    return Limits(
        prompt_max_chars=settings.prompt_max_chars,
        negative_prompt_max_chars=settings.negative_prompt_max_chars,
        duration_min_s=settings.duration_min_s,
        duration_max_s=settings.duration_max_s,
        resolutions=settings.resolutions,
        frame_rates=settings.frame_rates,
        default_frame_rate=settings.default_frame_rate,
    )
