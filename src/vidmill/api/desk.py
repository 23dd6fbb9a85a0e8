"""What every handler needs, made once from the composition root's App."""

import random
from dataclasses import dataclass, replace
from typing import Self

from vidmill.api.auth import Gate
from vidmill.api.callbacks import render_sample
from vidmill.api.following import Following, Glances
from vidmill.api.links import FileLinks
from vidmill.api.load import Load
from vidmill.api.metrics import Meter
from vidmill.api.repeats import UnderWay
from vidmill.api.throttling import Throttle
from vidmill.api.waiting import Reads
from vidmill.domain.clip import Resolution
from vidmill.domain.job import Job
from vidmill.domain.order import Limits
from vidmill.domain.pricing import Tariff
from vidmill.outbound.enhancer import Enhancer
from vidmill.outbound.guard import Guard, resolve_host
from vidmill.outbound.sender import Sender
from vidmill.services.access import find_caller
from vidmill.services.batch_keeping import BatchKeeper
from vidmill.services.batches import Batches
from vidmill.services.delivering import Courier
from vidmill.services.drafts import Drafts
from vidmill.services.erasure import Erasure
from vidmill.services.forecast import Forecast
from vidmill.services.fullness import Fullness
from vidmill.services.keys import Keys
from vidmill.services.loras import Loras
from vidmill.services.quota import Quota
from vidmill.services.rates import Counts, Rates
from vidmill.services.storyboard_keeping import StoryboardKeeper
from vidmill.services.storyboards import Storyboards
from vidmill.services.submission import Submission
from vidmill.services.tasks import Tasks
from vidmill.services.webhooks import Webhooks
from vidmill.settings import Settings
from vidmill.wiring import App, loras_of

NO_ENHANCER = "no prompt enhancer is configured here (VIDMILL_ENHANCER_URL); leave it out"


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The services behind the routes, and what this process counts and bounds.

    Attributes:
        enhancer: None = no language model is configured.
        single_submission: `submission` that takes `enhance`, where there is an enhancer.
        dialect_submission: `submission` with the limits of dialects that are not ours.
    """

    app: App
    gate: Gate
    throttle: Throttle
    quota: Quota
    keys: Keys
    loras: Loras
    under_way: UnderWay
    limits: Limits
    submission: Submission
    enhancer: Enhancer | None
    single_submission: Submission
    dialect_submission: Submission
    tasks: Tasks
    batches: Batches
    storyboards: Storyboards
    reads: Reads
    glances: Glances
    following: Following
    load: Load
    meter: Meter
    links: FileLinks
    webhook_guard: Guard
    webhooks: Webhooks

    @classmethod
    def of(cls, app: App) -> Self:
        settings = app.settings
        limits = limits_of(settings)
        forecast = Forecast(app.db, profile=app.profile, pool=settings.pool, clock=app.clock)
        reads = Reads(app.db, threads=settings.database_connections)
        guard = Guard(
            allow=settings.webhook_allow,
            is_http_allowed=settings.webhook_http,
            resolve=resolve_host,
        )
        drafts = Drafts(
            limits=limits,
            profile=app.profile,
            loras=loras_of(app),
            check_url=lambda url: guard.problem_of(url, "#/webhook_url"),
        )
        submission = submission_of(app, forecast, drafts)
        dialect_limits = replace(limits, prompt_max_chars=settings.dialect_prompt_max_chars)
        enhancer = enhancer_of(settings)
        quota = Quota(app.db)
        meter = Meter()
        tasks = _tasks(app, forecast)
        return cls(
            app=app,
            gate=Gate(lambda key_hash: find_caller(app.db, key_hash), reads=reads, clock=app.clock),
            throttle=_throttle(app, quota, reads, meter),
            quota=quota,
            keys=Keys(app.db),
            loras=drafts.loras,
            under_way=UnderWay(),
            limits=limits,
            submission=submission,
            enhancer=enhancer,
            single_submission=replace(
                submission,
                drafts=replace(drafts, enhance_refusal=None if enhancer else NO_ENHANCER),
            ),
            dialect_submission=replace(submission, drafts=replace(drafts, limits=dialect_limits)),
            tasks=tasks,
            batches=_batches(app, submission, tasks),
            storyboards=_storyboards(app, submission, tasks),
            reads=reads,
            glances=Glances(tasks, reads),
            following=Following(tasks, reads, watchers_max=settings.watchers_max),
            load=Load(requests_max=settings.requests_max),
            meter=meter,
            links=_links(app),
            webhook_guard=guard,
            webhooks=Webhooks(db=app.db, courier=_tester(app, guard), admit=guard.admit),
        )

    def varying(self, source: Job) -> Submission:
        """Return `single_submission` for what varies *source*, with the limits that took it.

        Whose prompt is longer than ours may be came by another dialect.
        """
        single, long = self.single_submission, self.dialect_submission.drafts.limits
        if len(source.request["prompt"]) <= self.limits.prompt_max_chars:
            return single
        return replace(single, drafts=replace(single.drafts, limits=long))


def _throttle(app: App, quota: Quota, reads: Reads, meter: Meter) -> Throttle:
    return Throttle(
        rates=Rates(Counts(app.settings.effective_limits_url), clock=app.clock),
        quota=quota,
        reads=reads,
        meter=meter,
        clock=app.clock,
    )


def _tasks(app: App, forecast: Forecast) -> Tasks:
    return Tasks(
        db=app.db,
        bus=app.bus,
        tickets=app.tickets,
        erasure=Erasure(db=app.db, blobs=app.blobs),
        forecast=forecast,
    )


def _batches(app: App, submission: Submission, tasks: Tasks) -> Batches:
    return Batches(
        db=app.db,
        submission=submission,
        tasks=tasks,
        keeper=BatchKeeper(db=app.db, bus=app.bus, tickets=app.tickets),
    )


def _storyboards(app: App, submission: Submission, tasks: Tasks) -> Storyboards:
    return Storyboards(
        db=app.db,
        submission=submission,
        tasks=tasks,
        keeper=StoryboardKeeper(db=app.db, bus=app.bus, tickets=app.tickets),
        blobs=app.blobs,
        shots_max=app.settings.storyboard_shots_max,
        duration_max_s=app.settings.storyboard_duration_max_s,
    )


def _links(app: App) -> FileLinks:
    return FileLinks(
        blobs=app.blobs,
        secret=app.signing_secret,
        ttl_s=app.settings.link_ttl_s,
        public_url=app.settings.public_url,
        clock=app.clock,
    )


def _tester(app: App, guard: Guard) -> Courier:
    """Return who makes the deliveries that are tests; the others are the `Deliverer`'s."""
    return Courier(
        db=app.db,
        send=Sender(guard, clock=app.clock).send,
        render=render_sample,
        rng=random.Random(),
        outcomes=app.webhook_outcomes,
    )


def enhancer_of(settings: Settings) -> Enhancer | None:
    """Return the language model that writes prompts out, if one is configured."""
    if not settings.enhancer_url:
        return None
    return Enhancer(
        settings.enhancer_url,
        model=settings.enhancer_model,
        api_key=settings.enhancer_api_key.get_secret_value(),
        timeout_s=settings.enhancer_timeout_s,
        max_chars=settings.enhancer_max_chars,
    )


def submission_of(app: App, forecast: Forecast, drafts: Drafts) -> Submission:
    """Return the desk that takes orders, at the operator's prices."""
    settings = app.settings
    return Submission(
        db=app.db,
        tickets=app.tickets,
        forecast=forecast,
        fullness=Fullness(app.db, queue_total_max=settings.queue_total_max, clock=app.clock),
        drafts=drafts,
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
