"""What every handler needs, made once from the composition root's App."""

from dataclasses import dataclass
from typing import Self

from vidmill.api.auth import Gate
from vidmill.api.links import FileLinks
from vidmill.domain.errors import FieldProblem
from vidmill.domain.order import Limits, Order, problems
from vidmill.services.access import find_caller
from vidmill.services.forecast import Forecast
from vidmill.services.submission import Submission
from vidmill.services.tasks import Tasks
from vidmill.settings import Settings
from vidmill.wiring import App


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The services behind the routes."""

    app: App
    gate: Gate
    limits: Limits
    submission: Submission
    tasks: Tasks
    links: FileLinks

    def check(self, order: Order) -> list[FieldProblem]:
        return problems(order, self.limits, self.app.profile)

    @classmethod
    def of(cls, app: App) -> Self:
        settings = app.settings
        limits = limits_of(settings)
        forecast = Forecast(app.db, profile=app.profile, pool=settings.pool, clock=app.clock)
        vip_tenants = frozenset(settings.vip_tenants)
        return cls(
            app=app,
            gate=Gate(
                lambda key_hash: find_caller(app.db, key_hash, vip_tenants=vip_tenants),
                clock=app.clock,
            ),
            limits=limits,
            submission=Submission(
                db=app.db,
                tickets=app.tickets,
                forecast=forecast,
                limits=limits,
                profile=app.profile,
                pool=settings.pool,
                max_attempts=settings.max_attempts,
            ),
            tasks=Tasks(db=app.db, bus=app.bus, blobs=app.blobs, forecast=forecast),
            links=FileLinks(
                blobs=app.blobs,
                secret=app.signing_secret,
                ttl_s=settings.link_ttl_s,
                public_url=settings.public_url,
                clock=app.clock,
            ),
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
