"""The table of routes of storyboards."""

from collections.abc import Sequence

from vidmill.api.desk import Desk
from vidmill.api.dialects import native_storyboard_models as models
from vidmill.api.dialects.native_route_parts import (
    ETAG,
    FILE_ANSWERS,
    FILE_PARAMETERS,
    IF_NONE_MATCH,
    OF_BODIES,
    OF_KEYS,
    REPLAYED,
    UNCHANGED,
    named,
    page_limit,
    query,
)
from vidmill.api.dialects.native_storyboard_request import ShotBody, StoryboardBody
from vidmill.api.dialects.native_storyboards import NativeStoryboards
from vidmill.api.dialects.native_views import PREFIX
from vidmill.api.repeats import PARAMETER as IDEMPOTENCY_KEY
from vidmill.api.routing import Answer, Route
from vidmill.domain import errors
from vidmill.domain.permission import Scope

STORYBOARDS = f"{PREFIX}/storyboards"
STORYBOARD = f"{STORYBOARDS}/{{storyboard_id}}"
SHOT_BYTES = 16 * 1024
"""Room for a shot in a body: two long texts, every character escaped, and metadata."""

_QUEUES = (
    *OF_BODIES,
    *OF_KEYS,
    errors.QuotaExceeded,
    errors.QueueFull,
    errors.ServiceUnavailable,
)
_ID = named("storyboard_id", models.STORYBOARD_ID)
_NUMBER = {**named("number", "2"), "description": "Of the shot, from 1."}
_PAGING = (
    page_limit("Entries"),
    query("cursor", "`next_cursor` of the page before.", type="string"),
)


def native_storyboard_routes(desk: Desk) -> Sequence[Route]:
    """Return the routes, bound to *desk*."""
    native = NativeStoryboards(desk)
    settings = desk.app.settings
    body_max = max(settings.body_max_bytes, settings.storyboard_shots_max * SHOT_BYTES)
    return (*_making(native, body_max), *_looking(native), *_changing(native))


def _making(native: NativeStoryboards, body_max_bytes: int) -> tuple[Route, ...]:
    made = Answer(
        description="Every shot is queued.",
        model=models.Storyboard,
        headers={"Location": "The storyboard.", **REPLAYED},
    )
    return (
        Route(
            method="POST",
            path=STORYBOARDS,
            handler=native.create_storyboard,
            summary="Render shots and join them into one clip; all are queued, or none",
            permission=Scope.SUBMIT,
            is_creating=True,
            body=StoryboardBody,
            body_max_bytes=body_max_bytes,
            answers={202: made},
            errors=_QUEUES,
            parameters=(IDEMPOTENCY_KEY,),
        ),
        Route(
            method="POST",
            path=f"{STORYBOARDS}/estimate",
            handler=native.estimate_storyboard,
            summary="What a storyboard would cost and how long it would be; nothing is queued",
            permission=Scope.READ,
            body=StoryboardBody,
            body_max_bytes=body_max_bytes,
            answers={200: Answer(description="As it is now.", model=models.StoryboardEstimate)},
            errors=(*OF_BODIES, errors.ServiceUnavailable),
        ),
    )


def _looking(native: NativeStoryboards) -> tuple[Route, ...]:
    return (
        Route(
            method="GET",
            path=STORYBOARDS,
            handler=native.storyboards,
            summary="List storyboards, newest first",
            permission=Scope.READ,
            answers={200: Answer(description="A page.", model=models.StoryboardPage)},
            errors=(errors.InvalidRequest, errors.InvalidCursor, errors.ServiceUnavailable),
            parameters=_PAGING,
        ),
        Route(
            method="GET",
            path=STORYBOARD,
            handler=native.storyboard,
            summary="How a storyboard stands, its shots, and the joined clip once it is there",
            permission=Scope.READ,
            answers={
                200: Answer(
                    description="The storyboard.",
                    model=models.Storyboard,
                    headers=ETAG,
                ),
                304: UNCHANGED,
            },
            errors=(errors.StoryboardNotFound, errors.ServiceUnavailable),
            parameters=(_ID, IF_NONE_MATCH),
        ),
        _content(native),
    )


def _content(native: NativeStoryboards) -> Route:
    return Route(
        method="GET",
        path=f"{STORYBOARD}/content",
        handler=native.storyboard_content,
        summary="Download a file of a joined storyboard",
        permission=Scope.READ,
        also_head=True,
        answers=FILE_ANSWERS,
        errors=(
            errors.StoryboardNotFound,
            errors.NotFound,
            errors.RangeNotSatisfiable,
            errors.InvalidRequest,
        ),
        parameters=(_ID, *FILE_PARAMETERS),
    )


def _changing(native: NativeStoryboards) -> tuple[Route, ...]:
    now = Answer(description="How it stands now.", model=models.Storyboard)
    conflict = (errors.StoryboardNotFound, errors.StoryboardStateConflict)
    return (
        Route(
            method="POST",
            path=f"{STORYBOARD}/shots/{{number}}",
            handler=native.replace_shot,
            summary="Make one shot anew, or change its `crossfade` alone; other clips stay",
            permission=Scope.SUBMIT,
            is_creating=True,
            body=ShotBody,
            is_body_partial=True,
            answers={
                202: Answer(
                    description="The shot is queued, unless its clip stays; all is joined anew.",
                    model=models.Storyboard,
                    headers=REPLAYED,
                )
            },
            errors=(*conflict, *_QUEUES),
            parameters=(_ID, _NUMBER, IDEMPOTENCY_KEY),
        ),
        Route(
            method="POST",
            path=f"{STORYBOARD}/cancel",
            handler=native.cancel_storyboard,
            summary="Stop every shot that is under way; clips that are there stay",
            permission=Scope.SUBMIT,
            answers={200: now},
            errors=(*conflict, errors.ServiceUnavailable),
            parameters=(_ID,),
        ),
        Route(
            method="DELETE",
            path=STORYBOARD,
            handler=native.delete_storyboard,
            summary="Forget a storyboard that is over, and its files; its tasks stay",
            permission=Scope.SUBMIT,
            answers={204: Answer(description="It is gone.", media_type="")},
            errors=(*conflict, errors.ServiceUnavailable),
            parameters=(_ID,),
        ),
    )
