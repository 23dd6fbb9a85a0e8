"""The native dialect's keys and quota: handlers and their table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from vidmill.api.answers import json_answer
from vidmill.api.body import read_json
from vidmill.api.desk import Desk
from vidmill.api.dialects import native_key_models as models
from vidmill.api.dialects.native_request import field_problem
from vidmill.api.dialects.native_route_parts import OF_BODIES, named
from vidmill.api.dialects.native_views import PREFIX, instant
from vidmill.api.routing import Answer, Route
from vidmill.domain import errors
from vidmill.domain.allowance import Standing
from vidmill.domain.api_key import public_name
from vidmill.domain.errors import FieldProblem, InvalidRequest
from vidmill.domain.permission import Scope
from vidmill.services.access import Caller
from vidmill.services.keys import OwnedKey, WantedKey
from vidmill.telemetry import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class KeyDesk:
    """The handlers, one per route of `native_key_routes`."""

    desk: Desk

    def list_keys(self, _request: Request, caller: Caller) -> Response:
        return json_answer({"data": [_key_doc(owned) for owned in self.desk.keys.all(caller)]})

    async def create_key(self, request: Request, caller: Caller) -> Response:
        wanted = _read(await read_json(request), caller)
        owned, key = await run_in_threadpool(self.desk.keys.create, caller, wanted)
        log.info("key_created", key_id=owned.key.id, tenant=caller.tenant)
        return json_answer({**_key_doc(owned), "api_key": key}, status=201)

    def revoke_key(self, request: Request, caller: Caller) -> Response:
        name = str(request.path_params["key_id"])
        self.desk.keys.revoke(caller, name)
        log.info("key_revoked", key_id=name, tenant=caller.tenant)
        return Response(status_code=204)

    async def quota(self, _request: Request, caller: Caller) -> Response:
        desk = self.desk
        rates = await desk.throttle.rates.standings(caller)
        clips = await desk.reads.run(lambda: desk.quota.standings(caller.tenant_id, caller.plan))
        doc = {
            "tenant": caller.tenant,
            "plan": caller.plan.name,
            "lane": caller.plan.lane.name.lower(),
            "limits": [_standing_doc(standing) for standing in (*rates, *clips)],
        }
        return json_answer(doc)


def native_key_routes(desk: Desk) -> Sequence[Route]:
    """Return the routes, bound to *desk*."""
    keys = KeyDesk(desk)
    return (
        *_key_routes(keys),
        Route(
            method="GET",
            path=f"{PREFIX}/quota",
            handler=keys.quota,
            summary="What your plan allows, and what is used of it",
            permission=Scope.READ,
            answers={200: Answer(description="Every limit.", model=models.Quota)},
            errors=(errors.ServiceUnavailable,),
        ),
    )


def _key_routes(keys: KeyDesk) -> tuple[Route, ...]:
    return (
        Route(
            method="GET",
            path=f"{PREFIX}/keys",
            handler=keys.list_keys,
            summary="List your tenant's API keys",
            permission=Scope.ADMIN,
            answers={200: Answer(description="All of them.", model=models.KeyList)},
            errors=(errors.ServiceUnavailable,),
        ),
        Route(
            method="POST",
            path=f"{PREFIX}/keys",
            handler=keys.create_key,
            summary="Make an API key; the answer is the only place that shows it",
            permission=Scope.ADMIN,
            is_creating=True,
            body=models.KeyBody,
            answers={201: Answer(description="It works from now on.", model=models.NewKey)},
            errors=(*OF_BODIES, errors.QuotaExceeded, errors.ServiceUnavailable),
        ),
        Route(
            method="DELETE",
            path=f"{PREFIX}/keys/{{key_id}}",
            handler=keys.revoke_key,
            summary="Take an API key out of use; servers may know it for five seconds more",
            permission=Scope.ADMIN,
            answers={204: Answer(description="It is out of use.", media_type="")},
            errors=(errors.KeyNotFound, errors.ServiceUnavailable),
            parameters=(named("key_id", models.KEY_ID),),
        ),
    )


def _read(data: object, caller: Caller) -> WantedKey:
    try:
        body = models.KeyBody.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise InvalidRequest(
            [field_problem(detail, models.KeyBody.model_fields) for detail in details]
        ) from None
    user = caller.user if body.user is None else body.user
    wrong = [*_wrong_name("name", body.name), *_wrong_name("user", user)]
    if not body.scopes or set(body.scopes) - set(Scope):
        wrong.append(
            _problem("scopes", "not_offered", f"choose one or more of: {', '.join(Scope)}")
        )
    days = body.expires_in_days
    if days is not None and not 0 < days <= models.DAYS_MAX:
        message = f"it must be more than 0 and at most {models.DAYS_MAX}; leave it out for ever"
        wrong.append(_problem("expires_in_days", "out_of_range", message))
    if wrong:
        raise InvalidRequest(wrong)
    scopes = frozenset(map(Scope, body.scopes))
    return WantedKey(name=body.name, user=user, scopes=scopes, expires_in_days=days)


def _wrong_name(field: str, text: str) -> list[FieldProblem]:
    if 1 <= len(text) <= models.NAME_MAX_CHARS and text.isprintable() and text.strip():
        return []
    message = f"it must be 1 to {models.NAME_MAX_CHARS} printable characters"
    return [_problem(field, "not_a_name", message)]


def _problem(field: str, code: str, message: str) -> FieldProblem:
    return FieldProblem(pointer=f"#/{field}", code=code, message=message)


def _key_doc(owned: OwnedKey) -> dict[str, Any]:
    key = owned.key
    return {
        "id": public_name(key.id),
        "name": key.name,
        "hint": key.grant.hint,
        "scopes": [scope for scope in Scope if scope in key.grant.scopes],
        "user": owned.user,
        "created_at": instant(key.created_at),
        "expires_at": instant(key.grant.expires_at),
        "last_used_at": instant(key.last_used_at),
    }


def _standing_doc(standing: Standing) -> dict[str, Any]:
    return {
        "name": standing.name,
        "limit": standing.limit,
        "used": standing.used,
        "remaining": standing.remaining,
        "window_seconds": standing.window_s,
        "resets_at": instant(standing.resets_at),
    }
