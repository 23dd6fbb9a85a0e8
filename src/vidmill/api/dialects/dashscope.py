"""The DashScope dialect, as the `dashscope` SDKs speak it: `/api/v1/services/...`, `/api/v1/tasks`.

What differs from the service is on the page docs/dashscope.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Self

from starlette.requests import Request
from starlette.responses import Response

from vidmill.api import waiting
from vidmill.api.answers import json_answer
from vidmill.api.body import read_json
from vidmill.api.desk import Desk
from vidmill.api.dialects import dashscope_views as views
from vidmill.api.dialects.dashscope_query import LISTED_MAX, Listing, read_listing
from vidmill.api.dialects.dashscope_request import TEXT_ALONE, read_submit
from vidmill.api.dialects.served import check_model, model_names, offered_sizes
from vidmill.api.edge import header
from vidmill.api.links import FileLinks
from vidmill.api.repeats import REPLAYED, read_key
from vidmill.domain.errors import (
    FieldProblem,
    InvalidRequest,
    PermissionDenied,
    TaskNotCancellable,
    TaskNotFound,
    UnsupportedOperation,
)
from vidmill.domain.job import WireStatus
from vidmill.services.access import Caller
from vidmill.services.tasks import TaskView
from vidmill.store.numbered import NumberedPage, numbered_page
from vidmill.telemetry import get_logger

log = get_logger(__name__)

SERVICE_MODEL = "wan2.2-t2v-plus"
"""What the service calls the model of Wan2.2 that makes clips from text."""

LINK_TTL_S = 86_400
"""The service's links live for a day, and its users store them."""


@dataclass(frozen=True)
class DashScope:
    """The handlers, one per route of `dashscope_routes`.

    Attributes:
        links: Make links that live as long as the service's.
    """

    desk: Desk
    links: FileLinks

    @classmethod
    def at(cls, desk: Desk) -> Self:
        return cls(desk, replace(desk.links, ttl_s=max(LINK_TTL_S, desk.links.ttl_s)))

    async def submit(self, request: Request, caller: Caller) -> Response:
        _require_async(request)
        desk = self.desk
        data = await read_json(request)
        sizes = offered_sizes(desk.limits, desk.app.profile)
        asked = read_submit(data, desk.dialect_submission.drafts.problems, sizes)
        check_model(asked.model, self._model_names())
        key = read_key(request, {"dashscope": data})
        with desk.under_way.alone(caller, key):
            write = await desk.reads.run_quick(
                lambda: desk.dialect_submission.accept(asked.order, caller, key=key)
            )
            accepted = await waiting.write(desk.app.db, write, order=caller.tenant_id)
        job = accepted.job
        if not accepted.is_replay:
            desk.meter.count_submit(job)
            log.info(
                "job_submitted", job_id=job.public_id, tenant=caller.tenant, lane=job.lane.name
            )
        # PENDING even if it is done: the 2.x client looks again only at what is not over, and a
        # submit has no place for the link.
        doc = {"output": views.brief(views.bare_id(job), views.PENDING)}
        return _answer(request, doc, headers=REPLAYED if accepted.is_replay else {})

    async def task(self, request: Request, caller: Caller) -> Response:
        task_id = request.path_params["task_id"]
        try:
            view = await self.desk.glances.get(task_id, caller)
        except TaskNotFound:
            return _answer(request, {"output": views.brief(task_id, views.UNKNOWN)})
        return _answer(request, views.task_doc(view, self._video_url(view, request)))

    def cancel(self, request: Request, caller: Caller) -> Response:
        view = self._cancelled(request.path_params["task_id"], caller)
        status = views.STATUSES[view.status]
        return _answer(request, {"output": views.brief(views.bare_id(view.job), status)})

    def tasks(self, request: Request, caller: Caller) -> Response:
        asked = read_listing(request.query_params)
        found = self._found(asked, caller)
        doc = views.list_doc(
            [self.desk.tasks.view(job) for job in found.jobs],
            total=found.total,
            page_no=asked.page_no,
            page_size=asked.page_size,
        )
        return _answer(request, doc)

    def from_images(self, _request: Request, _caller: Caller) -> Response:
        _refuse_media()

    def upload_policy(self, _request: Request, _caller: Caller) -> Response:
        _refuse_media()

    def _cancelled(self, task_id: str, caller: Caller) -> TaskView:
        """Cancel a task that waits, and no other, as the service does; return how it stands."""
        tasks = self.desk.tasks
        try:
            if tasks.get(task_id, caller).status is WireStatus.QUEUED:
                return tasks.cancel(task_id, caller)
        except (TaskNotFound, TaskNotCancellable):
            pass
        raise UnsupportedOperation(
            "Failed to cancel the task, please confirm if the task is in PENDING status."
            " (POST /v1/t2v/tasks/{id}/cancel also stops running ones.)"
        )

    def _found(self, asked: Listing, caller: Caller) -> NumberedPage:
        filters, model = asked.filters, asked.model_name
        if filters is None or (model is not None and model not in self._model_names()):
            return NumberedPage([], 0)
        return self.desk.app.db.read(
            lambda conn: numbered_page(
                conn,
                caller.tenant_id,
                filters=filters,
                offset=(asked.page_no - 1) * asked.page_size,
                limit=asked.page_size,
                most=LISTED_MAX,
            )
        )

    def _model_names(self) -> tuple[str, ...]:
        app = self.desk.app
        return model_names(app.profile, [SERVICE_MODEL, *app.settings.model_aliases])

    def _video_url(self, view: TaskView, request: Request) -> str | None:
        video = view.job.result.assets.get("video") if view.job.result else None
        return None if video is None else self.links.url(video, request)


def _answer(
    request: Request, doc: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
) -> Response:
    return json_answer({"request_id": request.scope["request_id"], **doc}, headers=headers or {})


def _require_async(request: Request) -> None:
    if (header(request, b"x-dashscope-async") or "").strip().lower() != "enable":
        raise PermissionDenied(
            "current user api does not support synchronous calls; send the header"
            " X-DashScope-Async: enable"
        )


def _refuse_media() -> NoReturn:
    raise InvalidRequest([FieldProblem(pointer="#/input", code="unsupported", message=TEXT_ALONE)])
