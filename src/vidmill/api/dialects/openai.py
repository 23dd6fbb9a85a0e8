"""The OpenAI dialect: `/v1/videos` and `/v1/models`, as the `openai` SDKs speak them.

What differs from OpenAI's own API is on the page docs/openai.md.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from vidmill.api import waiting
from vidmill.api.answers import json_answer, validated_answer
from vidmill.api.desk import Desk
from vidmill.api.dialects import native_query
from vidmill.api.dialects import openai_views as views
from vidmill.api.dialects.openai_fields import read_fields
from vidmill.api.dialects.openai_request import read_create, read_remix
from vidmill.api.dialects.served import asset_response, check_model, model_names, offered_sizes
from vidmill.api.edge import header
from vidmill.api.repeats import REPLAYED, read_key
from vidmill.domain.errors import (
    TaskCancelled,
    TaskFailed,
    TaskNotCompleted,
    UnsupportedOperation,
)
from vidmill.domain.job import WireStatus
from vidmill.domain.order import Order
from vidmill.services.access import Caller
from vidmill.services.idempotency import IdempotencyKey
from vidmill.services.tasks import TaskView
from vidmill.store.jobs import JobFilter
from vidmill.telemetry import get_logger

log = get_logger(__name__)

RESENT_S = 600.0
"""How long a request that the SDK sends again is taken for the one it sent before."""

VARIANTS: Mapping[str, str] = {"video": "video", "thumbnail": "poster", "spritesheet": "preview"}
"""Ours by OpenAI's name of it; an animated preview stands in for the sheet of frames."""

_LOST: Mapping[WireStatus, type[TaskFailed | TaskCancelled]] = {
    WireStatus.FAILED: TaskFailed,
    WireStatus.CANCELLED: TaskCancelled,
}


def _variant(text: str) -> str:
    if text not in VARIANTS:
        raise ValueError(f"choose one of: {', '.join(VARIANTS)}")
    return VARIANTS[text]


LIST_PARAMETERS: Mapping[str, native_query.Parser] = {
    "after": str,
    "limit": native_query.page_size,
    "order": native_query.order,
}


@dataclass(frozen=True)
class OpenAI:
    """The handlers, one per route of `openai_routes`."""

    desk: Desk

    async def create_video(self, request: Request, caller: Caller) -> Response:
        fields = await read_fields(request)
        desk = self.desk
        sizes = offered_sizes(desk.limits, desk.app.profile)
        drafts = desk.dialect_submission.drafts
        order = read_create(fields, drafts.problems, sizes, desk.app.profile)
        if order.model is not None:
            check_model(order.model, self._model_names())
        return await self._submit(request, caller, order, asked={"create": fields})

    async def remix_video(self, request: Request, caller: Caller) -> Response:
        fields = await read_fields(request)
        view = await self.desk.glances.get(request.path_params["video_id"], caller)
        source = view.job
        order = read_remix(fields, source, self.desk.dialect_submission.drafts.problems)
        asked = {"remix": source.public_id, "fields": fields}
        return await self._submit(request, caller, order, asked=asked, parent=source.public_id)

    async def retrieve_video(self, request: Request, caller: Caller) -> Response:
        view = await self.desk.glances.get(request.path_params["video_id"], caller)
        return validated_answer(views.video_doc(view), request, headers=_pace(view))

    def list_videos(self, request: Request, caller: Caller) -> Response:
        asked = native_query.read_query(request, LIST_PARAMETERS)
        tasks = self.desk.tasks
        page = tasks.page(
            caller,
            filters=JobFilter(),
            after=tasks.get(asked["after"], caller).job.id if "after" in asked else None,
            limit=asked.get("limit", native_query.LIMIT_DEFAULT),
            is_oldest_first=asked.get("order") == "asc",
        )
        docs = [views.video_doc(view) for view in page.tasks]
        return json_answer(views.list_doc(docs, has_more=page.after is not None))

    def delete_video(self, request: Request, caller: Caller) -> Response:
        video_id = request.path_params["video_id"]
        self.desk.tasks.erase(video_id, caller)
        return json_answer({"id": video_id, "object": "video.deleted", "deleted": True})

    def video_content(self, request: Request, caller: Caller) -> Response:
        asked = native_query.read_query(request, {"variant": _variant})
        view = self.desk.tasks.get(request.path_params["video_id"], caller)
        variant = asked.get("variant", "video")
        asset = view.job.result.assets.get(variant) if view.job.result else None
        if asset is None:
            raise _no_content(view)
        name = f"{views.video_id(view.job)}-{variant}"
        return asset_response(self.desk, request, asset, name=name)

    def list_models(self, _request: Request, _caller: Caller) -> Response:
        docs = [views.model_doc(name) for name in self._model_names()]
        return json_answer({"object": "list", "data": docs})

    def retrieve_model(self, request: Request, _caller: Caller) -> Response:
        name = request.path_params["model"]
        check_model(name, self._model_names())
        return json_answer(views.model_doc(name))

    def edit_video(self, _request: Request, _caller: Caller) -> Response:
        raise _only_text("edited")

    def extend_video(self, _request: Request, _caller: Caller) -> Response:
        raise _only_text("extended")

    def create_character(self, _request: Request, _caller: Caller) -> Response:
        raise _only_text("made with characters")

    def retrieve_character(self, _request: Request, _caller: Caller) -> Response:
        raise _only_text("made with characters")

    async def _submit(
        self,
        request: Request,
        caller: Caller,
        order: Order,
        *,
        asked: Mapping[str, Any],
        parent: str | None = None,
    ) -> Response:
        desk = self.desk
        key = read_key(request, asked) or _key_of_resent(request, caller, asked)
        with desk.under_way.alone(caller, None if key.is_taken_over else key):
            write = await desk.reads.run_quick(
                lambda: desk.dialect_submission.accept(order, caller, key=key, parent=parent)
            )
            accepted = await waiting.write(desk.app.db, write, order=caller.tenant_id)
        job = accepted.job
        if not accepted.is_replay:
            name = job.lane.name
            desk.meter.count_submit(job)
            log.info("job_submitted", job_id=job.public_id, tenant=caller.tenant, lane=name)
        view = await desk.reads.run_quick(lambda: desk.tasks.view(job))
        headers = _pace(view) | (REPLAYED if accepted.is_replay else {})
        return json_answer(views.video_doc(view), headers=headers)

    def _model_names(self) -> tuple[str, ...]:
        app = self.desk.app
        return model_names(app.profile, app.settings.model_aliases)


def _key_of_resent(request: Request, caller: Caller, asked: Mapping[str, Any]) -> IdempotencyKey:
    """Return a key made of the request itself: the SDKs send none, and send creates again.

    A first try takes the key over, whoever had it: the same words again are another video.
    """
    text = json.dumps([caller.key_id, asked], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    tries = header(request, b"x-stainless-retry-count") or "0"
    return IdempotencyKey(
        key=f"resent {digest}",  # no header can hold a space here
        fingerprint=digest,
        kept_s=RESENT_S,
        is_taken_over=not tries.isdigit() or int(tries[:3]) == 0,
    )


def _no_content(view: TaskView) -> TaskNotCompleted | TaskFailed | TaskCancelled:
    lost = _LOST.get(view.status)
    if lost is not None:
        return lost(f"the video {view.status} and has no content")
    return TaskNotCompleted(
        f"the video is {views.STATUSES[view.status]}; wait until it is completed"
    )


def _only_text(what: str) -> UnsupportedOperation:
    return UnsupportedOperation(f"videos cannot be {what} here: the model takes text alone")


def _pace(view: TaskView) -> dict[str, str]:
    return {} if view.is_over else {"openai-poll-after-ms": str(views.poll_after_ms(view))}
