"""Storyboards in the native dialect: `/v1/t2v/storyboards`. Handlers translate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from vidmill.api.answers import json_answer, validated_answer
from vidmill.api.body import read_json
from vidmill.api.desk import Desk
from vidmill.api.dialects import native_query
from vidmill.api.dialects import native_storyboard_views as views
from vidmill.api.dialects.native_pages import PAGE, page_answer
from vidmill.api.dialects.native_storyboard_request import (
    Asked,
    read_fade,
    read_shot_changes,
    read_storyboard,
)
from vidmill.api.dialects.served import asset_response
from vidmill.api.repeats import REPLAYED, read_key
from vidmill.domain.clip import Asset
from vidmill.domain.errors import NotFound, StoryboardNotFound
from vidmill.services.access import Caller
from vidmill.services.idempotency import IdempotencyKey
from vidmill.services.storyboards import StoryboardView
from vidmill.telemetry import get_logger

log = get_logger(__name__)

DIGITS_MAX = 4


@dataclass(frozen=True)
class NativeStoryboards:
    """The handlers, one per route of `native_storyboard_routes`."""

    desk: Desk

    async def create_storyboard(self, request: Request, caller: Caller) -> Response:
        body = await read_json(request)
        key = read_key(request, {"storyboard": body})
        return await run_in_threadpool(self._create, body, key, request, caller)

    async def estimate_storyboard(self, request: Request, caller: Caller) -> Response:
        body = await read_json(request)
        quote = await run_in_threadpool(
            lambda: self.desk.storyboards.quote(self._asked(body, caller).shots, caller)
        )
        return json_answer(views.estimate_doc(quote))

    async def replace_shot(self, request: Request, caller: Caller) -> Response:
        changes = await read_json(request, absent={})
        board_id, number = request.path_params["storyboard_id"], _number(request)
        meaning = {"storyboard": board_id, "shot": number, "changes": changes}
        key = read_key(request, meaning)
        return await run_in_threadpool(self._replace, changes, key, request, caller)

    def storyboard(self, request: Request, caller: Caller) -> Response:
        view = self.desk.storyboards.get(request.path_params["storyboard_id"], caller)
        return validated_answer(self._doc(view, request), request)

    def storyboards(self, request: Request, caller: Caller) -> Response:
        return page_answer(
            self.desk,
            native_query.read_query(request, PAGE),
            {"storyboards_of": caller.tenant_id},
            lambda after, limit: self.desk.storyboards.page(caller, after=after, limit=limit),
            place_of=lambda view: view.board.id,
            doc_of=lambda view: self._doc(view, request),
        )

    def storyboard_content(self, request: Request, caller: Caller) -> Response:
        asked = native_query.read_query(request, {"variant": native_query.variant, "download": str})
        board = self.desk.storyboards.get(request.path_params["storyboard_id"], caller).board
        variant = asked.get("variant", "video")
        asset = board.result.assets.get(variant) if board.result else None
        if asset is None:
            raise NotFound(f"the storyboard is {board.state} and has no {variant} yet")
        return asset_response(self.desk, request, asset, name=f"{board.public_id}-{variant}")

    def cancel_storyboard(self, request: Request, caller: Caller) -> Response:
        view = self.desk.storyboards.cancel(request.path_params["storyboard_id"], caller)
        return self._changed(view, request, caller)

    def delete_storyboard(self, request: Request, caller: Caller) -> Response:
        board_id = request.path_params["storyboard_id"]
        self.desk.storyboards.delete(board_id, caller)
        log.info("storyboard_deleted", storyboard=board_id, tenant=caller.tenant)
        return Response(status_code=204)

    def _create(
        self, body: object, key: IdempotencyKey | None, request: Request, caller: Caller
    ) -> Response:
        asked = self._asked(body, caller)
        with self.desk.under_way.alone(caller, key):
            view = self.desk.storyboards.create(asked.sheet, asked.shots, caller, key=key)
        location = views.links(view.board.public_id, len(view.shots))["self"]
        return self._changed(view, request, caller, status=202, headers={"Location": location})

    def _replace(
        self, changes: object, key: IdempotencyKey | None, request: Request, caller: Caller
    ) -> Response:
        boards = self.desk.storyboards
        board_id, number = request.path_params["storyboard_id"], _number(request)
        fade_s = read_fade(changes)
        if fade_s is not None:
            view = boards.refade(board_id, number, fade_s, caller)
            return self._changed(view, request, caller, status=202)
        view = boards.get(board_id, caller)
        old, board = boards.shot(view, number), view.board
        shared = {
            "resolution": board.resolution,
            "aspect_ratio": board.aspect_ratio,
            "frame_rate": board.fps,
            "priority": board.priority,
        }
        shot = read_shot_changes(
            changes,
            old.job.request if old.job else {"duration": old.duration_s},
            shared,
            self.desk.submission.drafts.problems_for(caller),
            crossfade_s=old.crossfade_s,
        )
        with self.desk.under_way.alone(caller, key):
            view = boards.replace_shot(board_id, number, shot, caller, key=key)
        return self._changed(view, request, caller, status=202)

    def _asked(self, body: object, caller: Caller) -> Asked:
        desk = self.desk
        return read_storyboard(
            body,
            desk.submission.drafts.problems_for(caller),
            desk.storyboards.problems,
            frame_rate=desk.limits.default_frame_rate,
        )

    def _changed(
        self,
        view: StoryboardView,
        request: Request,
        caller: Caller,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        if not view.is_replay:
            board = view.board
            fields: dict[str, Any] = {"storyboard": board.public_id, "tenant": caller.tenant}
            log.info("storyboard_changed", **fields, state=board.state, revision=board.revision)
        said = {**(headers or {}), **(REPLAYED if view.is_replay else {})}
        return json_answer(self._doc(view, request), status=status, headers=said)

    def _doc(self, view: StoryboardView, request: Request) -> dict[str, Any]:
        def url_of(asset: Asset) -> str:
            return self.desk.links.url(asset, request)

        return views.storyboard_doc(view, url_of, expires_at=self.desk.links.expires_at())


def _number(request: Request) -> int:
    text = request.path_params["number"]
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
        raise StoryboardNotFound(f"no shot has the number {text[:40]!r}; they count from 1")
    return int(text)
