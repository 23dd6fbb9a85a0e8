"""The native dialect: `/v1/t2v`. Handlers translate; what happens is decided in `services`.

Submitting and polling are coroutines on the event loop (a thread hop costs more than either, see
docs/benchmarks.md); the rest are plain functions in threads.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from vidmill.api import waiting
from vidmill.api.answers import json_answer, validated_answer
from vidmill.api.auth import key_of
from vidmill.api.body import read_json
from vidmill.api.cursors import make_cursor, read_cursor
from vidmill.api.desk import Desk
from vidmill.api.dialects import native_explain, native_query, native_views
from vidmill.api.dialects.native_capabilities import capabilities_doc
from vidmill.api.dialects.native_request import Check, read_changes, read_order
from vidmill.api.dialects.served import asset_response
from vidmill.api.edge import header
from vidmill.api.errors import Asked, problem
from vidmill.api.events import (
    EventStream,
    Teller,
    has_heard_all,
    parse_event_id,
    stream,
    while_admitted,
)
from vidmill.api.following import Watcher, changed, over
from vidmill.api.load import leave
from vidmill.api.repeats import REPLAYED, read_key
from vidmill.api.sockets import TaskSocket
from vidmill.domain.clip import Asset
from vidmill.domain.enhancing import Enhancement
from vidmill.domain.errors import (
    InvalidRequest,
    NotFound,
    PermissionDenied,
    QueueFull,
    QuotaExceeded,
    ServiceUnavailable,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
)
from vidmill.domain.job import Job, WireStatus
from vidmill.domain.order import Order
from vidmill.services.access import Caller
from vidmill.services.drafts import Drafts
from vidmill.services.idempotency import IdempotencyKey, is_repeat
from vidmill.services.preview_frames import preview_frames
from vidmill.services.submission import Accepted, Submission
from vidmill.services.tasks import TaskView
from vidmill.telemetry import get_logger

log = get_logger(__name__)

POLL_MIN_S, POLL_MAX_S = 1, 10


@dataclass(frozen=True)
class Native:
    """The handlers, one per route of `native_routes`."""

    desk: Desk

    async def generate(self, request: Request, caller: Caller) -> Response:
        body = await read_json(request)
        drafts = self.desk.single_submission.drafts
        order = await self._read(partial(read_order, body), drafts, caller)
        key = read_key(request, body)
        return await self._submit(request, caller, order, key=key)

    async def regenerate(self, request: Request, caller: Caller) -> Response:
        changes = await read_json(request, absent={})
        view = await self.desk.glances.get(request.path_params["task_id"], caller)
        source = view.job
        drafts = self.desk.varying(source).drafts
        order = await self._read(partial(read_changes, changes, source.request), drafts, caller)
        order = _with_same_text(order, source)
        key = read_key(request, {"regenerate": source.public_id, "changes": changes})
        return await self._submit(request, caller, order, key=key, source=source)

    async def estimate(self, request: Request, caller: Caller) -> Response:
        body = await read_json(request)
        drafts = self.desk.single_submission.drafts
        order = await self._read(partial(read_order, body), drafts, caller)
        return json_answer(await run_in_threadpool(self._estimate, order, request, caller))

    async def _read(self, read: Callable[[Check], Order], drafts: Drafts, caller: Caller) -> Order:
        """Have *read* an order; a refusal names the LoRA too, which the database has to be asked.

        What is right so far is checked once more when it is accepted, LoRA and all.
        """
        try:
            return read(drafts.problems)
        except InvalidRequest:
            return await self.desk.reads.run_quick(lambda: read(drafts.problems_for(caller)))

    def _estimate(self, order: Order, request: Request, caller: Caller) -> dict[str, Any]:
        try:
            job = self.desk.single_submission.estimate(order, caller)
        except (PermissionDenied, QueueFull, QuotaExceeded) as refusal:
            said = problem(refusal, request_id=Asked.of(request.scope).request_id)
            return native_explain.refused_estimate_doc(said)
        cost_s = self.desk.submission.forecast.cost_s(job.spec, job.pool)
        day = self.desk.quota.day(caller.tenant_id, caller.plan)
        return native_explain.estimate_doc(
            self.desk.tasks.view(job),
            gpu_s=cost_s,
            clips_left_today=day.remaining if day else None,
            is_unwritten=order.enhance,
        )

    async def _submit(
        self,
        request: Request,
        caller: Caller,
        order: Order,
        *,
        key: IdempotencyKey | None,
        source: Job | None = None,
    ) -> Response:
        """Queue *order*, which may vary *source*.

        With `Prefer: wait`, answer when it is over or the wait is.
        """
        desk = self.desk
        submission = desk.varying(source) if source else desk.single_submission
        parent = source.public_id if source else None
        with desk.under_way.alone(caller, key):
            order = await self._enhanced(order, caller, key, submission)
            write = await desk.reads.run_quick(
                lambda: submission.accept(order, caller, key=key, parent=parent)
            )
            accepted = await waiting.write(desk.app.db, write, order=caller.tenant_id)
        view = await desk.reads.run_quick(lambda: desk.tasks.view(accepted.job))
        wait_s = native_query.preferred_wait_s(header(request, b"prefer"))
        if wait_s and not view.is_over:
            leave(request.scope)
            # It is made: no room to wait here, or being deleted meanwhile, does not change that.
            with contextlib.suppress(ServiceUnavailable, TaskNotFound):
                view = await over(desk.following, view, caller, timeout_s=wait_s)
        return self._accepted(accepted, view, request, caller)

    async def _enhanced(
        self, order: Order, caller: Caller, key: IdempotencyKey | None, submission: Submission
    ) -> Order:
        """Have the prompt written out where that is asked for, and not done before.

        Whatever else would refuse the order does so first: a prompt leaves for nothing never.
        """
        desk = self.desk
        if not order.enhance or order.enhanced or desk.enhancer is None:
            return order
        await desk.reads.run_quick(lambda: submission.accept(order, caller, key=key))
        if await desk.reads.run_quick(lambda: is_repeat(desk.app.db, caller, key)):
            return order
        return replace(order, enhanced=await desk.enhancer.enhance(order.prompt))

    def retry(self, request: Request, caller: Caller) -> Response:
        job = self.desk.tasks.get(request.path_params["task_id"], caller).job
        key = read_key(request, {"retry": job.public_id})
        with self.desk.under_way.alone(caller, key):
            accepted = self.desk.app.db.write(
                self.desk.submission.accept_again(job, caller, key=key)
            )
        return self._accepted(accepted, self.desk.tasks.view(accepted.job), request, caller)

    async def status(self, request: Request, caller: Caller) -> Response:
        asked = native_query.read_query(request, native_query.STATUS_PARAMETERS)
        task_id = native_query.required(asked, "task_id")
        view = await self.desk.glances.get(task_id, caller)
        if wait_s := asked.get("wait"):
            leave(request.scope)
            view = await changed(self.desk.following, view, caller, timeout_s=wait_s)
        return validated_answer(self._status(view, request), request, headers=_pace(view.job))

    def result(self, request: Request, caller: Caller) -> Response:
        view = self.desk.tasks.get(request.path_params["task_id"], caller)
        if view.status is WireStatus.COMPLETED:
            return validated_answer(self._result(view, request), request)
        _refuse_if_lost(view)
        return json_answer(self._status(view, request), status=202, headers=_pace(view.job))

    def task(self, request: Request, caller: Caller) -> Response:
        view = self.desk.tasks.get(request.path_params["task_id"], caller)
        doc = native_views.task_doc(
            view,
            self._urls(request),
            expires_at=self.desk.links.expires_at(),
            attempts=native_views.attempts_doc(self.desk.tasks.runs(view)),
        )
        return validated_answer(doc, request, headers=_pace(view.job))

    def explain(self, request: Request, caller: Caller) -> Response:
        view = self.desk.tasks.get(request.path_params["task_id"], caller)
        runs = native_views.attempts_doc(self.desk.tasks.runs(view))
        frames = [
            {"step": one.step, "of": one.num_steps, "url": self.desk.links.url(one, request)}
            for one in preview_frames(self.desk.app.blobs, view)
        ]
        doc = native_explain.explain_doc(view, runs=runs, preview_frames=frames)
        return validated_answer(doc, request, headers=_pace(view.job))

    def tasks(self, request: Request, caller: Caller) -> Response:
        asked = native_query.read_query(request, native_query.LIST_PARAMETERS)
        cursor = asked.pop("cursor", None)
        limit = asked.pop("limit", native_query.LIMIT_DEFAULT)
        question = {**asked, "tenant": caller.tenant_id}
        secret = self.desk.app.signing_secret
        page = self.desk.tasks.page(
            caller,
            filters=native_query.job_filter(asked),
            after=None if cursor is None else read_cursor(cursor, question, secret=secret),
            limit=limit,
            is_oldest_first=asked.get("order") == "asc",
        )
        following = page.after and make_cursor(page.after, question, secret=secret)
        doc = {
            "data": [self._status(view, request) for view in page.tasks],
            "has_more": page.after is not None,
            "next_cursor": following,
        }
        return validated_answer(doc, request)

    def cancel(self, request: Request, caller: Caller) -> Response:
        view = self.desk.tasks.cancel(request.path_params["task_id"], caller)
        status = 200 if view.is_over else 202
        return json_answer(self._status(view, request), status=status, headers=_pace(view.job))

    def run_next(self, request: Request, caller: Caller) -> Response:
        view = self.desk.tasks.run_next(request.path_params["task_id"], caller)
        return json_answer(self._status(view, request), headers=_pace(view.job))

    async def events(self, request: Request, caller: Caller) -> Response:
        task_id = request.path_params["task_id"]
        view = await self.desk.glances.get(task_id, caller)
        last = parse_event_id(request.headers.get("last-event-id"))
        if has_heard_all(view, last):
            return Response(status_code=204)  # tells an EventSource not to come back
        watcher = Watcher(self.desk.following, view, caller)
        watcher.start()
        leave(request.scope)
        frames = stream(watcher, view, last=last, tell=self._teller(request))
        key = key_of(header(request, b"authorization"))
        frames = while_admitted(frames, partial(self.desk.gate.still_admits, key))
        return EventStream(watcher, frames)

    def content(self, request: Request, caller: Caller) -> Response:
        asked = native_query.read_query(request, {"variant": native_query.variant, "download": str})
        view = self.desk.tasks.get(request.path_params["task_id"], caller)
        _refuse_if_lost(view)
        variant = asked.get("variant", "video")
        asset = view.job.result.assets.get(variant) if view.job.result else None
        if asset is None:
            raise NotFound(f"the task is {view.status} and has no {variant} yet")
        return asset_response(self.desk, request, asset, name=f"{view.job.public_id}-{variant}")

    def capabilities(self, request: Request, caller: Caller) -> Response:
        doc = capabilities_doc(
            self.desk.limits,
            self.desk.app.profile,
            is_vip=caller.is_vip,
            loras=self.desk.loras.offered(caller.tenant_id).values(),
            has_enhancer=self.desk.enhancer is not None,
        )
        return validated_answer(doc, request)

    def delete(self, request: Request, caller: Caller) -> Response:
        task_id = request.path_params["task_id"]
        is_gone = self.desk.tasks.erase(task_id, caller)
        log.info("job_erased", job_id=task_id, tenant=caller.tenant, is_gone=is_gone)
        return Response(status_code=204 if is_gone else 202)

    async def socket(self, socket: WebSocket) -> None:
        await TaskSocket(self.desk, socket, tell=self._teller(socket)).run()

    def _accepted(
        self, accepted: Accepted, view: TaskView, request: Request, caller: Caller
    ) -> Response:
        job = accepted.job
        if not accepted.is_replay:
            name = job.lane.name
            self.desk.meter.count_submit(job)
            log.info("job_submitted", job_id=job.public_id, tenant=caller.tenant, lane=name)
        headers = {**_pace(view.job), "Location": native_views.links(job.public_id)["status"]}
        return json_answer(
            self._status(view, request),
            status=200 if view.is_over else 202,
            headers=headers | REPLAYED if accepted.is_replay else headers,
        )

    def _teller(self, connection: HTTPConnection) -> Teller:
        return Teller(
            doc=lambda news: self._status(news, connection),
            timestamp=lambda: str(native_views.instant(self.desk.app.clock())),
        )

    def _status(self, view: TaskView, request: HTTPConnection) -> dict[str, object]:
        return native_views.status_doc(view, self._urls(request))

    def _result(self, view: TaskView, request: Request) -> dict[str, object]:
        return native_views.result_doc(
            view, self._urls(request), expires_at=self.desk.links.expires_at()
        )

    def _urls(self, request: HTTPConnection) -> native_views.UrlOf:
        def url_of(asset: Asset) -> str:
            return self.desk.links.url(asset, request)

        return url_of


def _refuse_if_lost(view: TaskView) -> None:
    task_id = view.job.public_id
    if view.status is WireStatus.FAILED:
        raise TaskFailed(f"task {task_id} failed: {view.job.error_message or view.job.error_code}")
    if view.status is WireStatus.CANCELLED:
        raise TaskCancelled(f"task {task_id} was cancelled; submit it again for a result")


def _with_same_text(order: Order, source: Job) -> Order:
    """Keep what the enhancer made of *source*'s prompt where *order* has the same prompt."""
    made = source.request.get("shaping", {}).get("enhancement")
    if made is None or not order.enhance or order.prompt != source.request["prompt"]:
        return order
    return replace(order, enhanced=Enhancement(**made))


def _pace(job: Job) -> dict[str, str]:
    """Return `Retry-After` while *job* is live: a tenth of what it costs, 1 to 10 s."""
    if job.is_terminal:
        return {}
    return {"Retry-After": str(round(min(POLL_MAX_S, max(POLL_MIN_S, job.est_cost_s / 10))))}
