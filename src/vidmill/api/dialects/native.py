"""The native dialect: `/v1/t2v`. Handlers translate; what happens is decided in `services`.

Submitting and polling are coroutines on the event loop (a thread hop costs more than either, see
docs/benchmarks.md); the rest are plain functions in threads.
"""

from dataclasses import dataclass

from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.websockets import WebSocket

from vidmill.api import waiting
from vidmill.api.answers import json_answer, validated_answer
from vidmill.api.body import read_json
from vidmill.api.cursors import make_cursor, read_cursor
from vidmill.api.desk import Desk
from vidmill.api.dialects import native_query, native_views
from vidmill.api.dialects.native_capabilities import capabilities_doc
from vidmill.api.dialects.native_request import read_order
from vidmill.api.events import EventStream, Teller, has_heard_all, parse_event_id, stream
from vidmill.api.files import file_response
from vidmill.api.following import Watcher, changed
from vidmill.api.load import leave
from vidmill.api.repeats import REPLAYED, read_key
from vidmill.api.sockets import TaskSocket
from vidmill.domain.clip import Asset
from vidmill.domain.errors import NotFound, TaskCancelled, TaskFailed
from vidmill.domain.job import Job, WireStatus
from vidmill.services.access import Caller
from vidmill.services.submission import Accepted
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
        order = read_order(body, self.desk.check)
        key = read_key(request, body)
        desk = self.desk
        write = await desk.reads.run_quick(lambda: desk.submission.accept(order, caller, key=key))
        accepted = await waiting.write(desk.app.db, write, order=caller.tenant_id)
        view = await desk.reads.run_quick(lambda: desk.tasks.view(accepted.job))
        return self._accepted(accepted, view, request, caller)

    def retry(self, request: Request, caller: Caller) -> Response:
        job = self.desk.tasks.get(request.path_params["task_id"], caller).job
        key = read_key(request, {"retry": job.public_id})
        write = self.desk.submission.accept_again(job, caller, key=key)
        accepted = self.desk.app.db.write(write)
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
        return json_answer(doc)

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
        return EventStream(watcher, frames)

    def content(self, request: Request, caller: Caller) -> Response:
        asked = native_query.read_query(request, {"variant": native_query.variant, "download": str})
        view = self.desk.tasks.get(request.path_params["task_id"], caller)
        _refuse_if_lost(view)
        variant = asked.get("variant", "video")
        asset = view.job.result.assets.get(variant) if view.job.result else None
        if asset is None:
            raise NotFound(f"the task is {view.status} and has no {variant} yet")
        elsewhere = self.desk.links.foreign_url(asset, self.desk.links.expires_at())
        if elsewhere is not None:
            return RedirectResponse(elsewhere, status_code=302)
        return file_response(
            request, self.desk.app.blobs, asset.key, name=f"{view.job.public_id}-{variant}"
        )

    def capabilities(self, request: Request, caller: Caller) -> Response:
        doc = capabilities_doc(self.desk.limits, self.desk.app.profile, is_vip=caller.is_vip)
        return validated_answer(doc, request)

    def delete(self, request: Request, caller: Caller) -> Response:
        task_id = request.path_params["task_id"]
        self.desk.tasks.erase(task_id, caller)
        log.info("job_erased", job_id=task_id, tenant=caller.tenant)
        return Response(status_code=204)

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
        headers = {**_pace(job), "Location": native_views.links(job.public_id)["status"]}
        return json_answer(
            self._status(view, request),
            status=200 if job.is_terminal else 202,
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


def _pace(job: Job) -> dict[str, str]:
    """Return `Retry-After` while *job* is live: a tenth of what it costs, 1 to 10 s."""
    if job.is_terminal:
        return {}
    return {"Retry-After": str(round(min(POLL_MAX_S, max(POLL_MIN_S, job.est_cost_s / 10))))}
