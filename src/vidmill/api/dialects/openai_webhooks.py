"""Webhook endpoints as newer `openai` SDKs manage them: `/v1/webhook_endpoints`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from vidmill.api.answers import json_answer
from vidmill.api.desk import Desk
from vidmill.api.dialects import native_query
from vidmill.api.dialects.openai_fields import Reader, problem, read_each, read_fields, text, truth
from vidmill.api.dialects.openai_views import list_doc
from vidmill.api.load import leave
from vidmill.api.repeats import REPLAYED, read_key
from vidmill.domain.errors import InvalidRequest, WebhookNotFound
from vidmill.domain.webhook import ENDPOINT_TYPES, VIDEO_TYPES, EventType
from vidmill.services.access import Caller
from vidmill.services.webhooks import ROTATION_S, Created, secret_of
from vidmill.store.webhooks import Endpoint

HINT_CHARS = 4

_ASKED: Mapping[str, native_query.Parser] = {"after": str, "limit": native_query.page_size}


def _event_type(value: Any) -> EventType:
    if value not in list(ENDPOINT_TYPES):
        raise ValueError(f"choose from: {', '.join(ENDPOINT_TYPES)}")
    return EventType(value)


def _event_types(value: Any) -> Sequence[EventType]:
    if not isinstance(value, list):
        raise ValueError("it must be a list of event types")  # noqa: TRY004  a refusal as others
    return [_event_type(name) for name in value]


_READERS: Mapping[str, Reader] = {"name": text, "url": text, "event_types": _event_types}
_OURS = {"name": "description", "event_types": "events"}


@dataclass(frozen=True)
class OpenAIWebhooks:
    """The handlers of endpoints, one per route of `openai_routes`."""

    desk: Desk

    async def create_endpoint(self, request: Request, caller: Caller) -> Response:
        fields = await read_fields(request)
        values = _read(fields, _READERS, required=("name", "url", "event_types"))
        key = read_key(request, {"webhook_endpoint": fields})
        with self.desk.under_way.alone(caller, key):
            created = await self.desk.webhooks.create(
                caller,
                url=values["url"],
                events=values["event_types"],
                description=values["name"],
                key=key,
            )
        return _made(created)

    def list_endpoints(self, request: Request, caller: Caller) -> Response:
        asked = native_query.read_query(request, _ASKED)
        found = [e for e in self.desk.webhooks.endpoints(caller) if not e.is_default]
        if "after" in asked:
            first = self.desk.webhooks.get(asked["after"], caller)
            found = [endpoint for endpoint in found if endpoint.id < first.id]
        limit = asked.get("limit", native_query.LIMIT_DEFAULT)
        docs = [_endpoint_doc(endpoint) for endpoint in found[:limit]]
        return json_answer(list_doc(docs, has_more=len(found) > limit))

    def retrieve_endpoint(self, request: Request, caller: Caller) -> Response:
        return json_answer(_endpoint_doc(self._own(request, caller)))

    async def update_endpoint(self, request: Request, caller: Caller) -> Response:
        values = _read(await read_fields(request), _READERS)
        changes = {_OURS.get(name, name): value for name, value in values.items()}
        changed = await self.desk.webhooks.change(_id(request), caller, changes)
        return json_answer(_endpoint_doc(changed))

    def delete_endpoint(self, request: Request, caller: Caller) -> Response:
        self.desk.webhooks.delete(_id(request), caller)
        return json_answer(
            {"id": _id(request), "object": "webhook_endpoint.deleted", "deleted": True}
        )

    async def rotate_endpoint_secret(self, request: Request, caller: Caller) -> Response:
        name = "keep_old_secret_active_for_24_hours"
        fields = await read_fields(request) if await request.body() else {}
        values = _read(fields, {name: truth})
        endpoint = await run_in_threadpool(self._own, request, caller)
        key = read_key(request, {"rotate_secret": endpoint.public_id, "fields": fields})
        with self.desk.under_way.alone(caller, key):
            rotated = await run_in_threadpool(
                self.desk.webhooks.rotate,
                endpoint.public_id,
                caller,
                keep_s=ROTATION_S if values.get(name) else 0.0,
                key=key,
            )
        return _made(rotated)

    async def test_endpoint(self, request: Request, caller: Caller) -> Response:
        values = _read(
            await read_fields(request), {"event_type": _event_type}, required=("event_type",)
        )
        leave(request.scope)  # the receiver may take as long as an attempt may
        delivery = await self.desk.webhooks.test(_id(request), caller, values["event_type"])
        attempt = delivery.log[-1] if delivery.log else {}
        doc = {
            "object": "webhook_endpoint.test",
            "webhook_endpoint_id": _id(request),
            "event_type": values["event_type"],
            "status_code": attempt.get("status") or 0,
            "success": True,
        }
        return json_answer(doc)

    def _own(self, request: Request, caller: Caller) -> Endpoint:
        """Return an endpoint that somebody made: `default` is no part of this API."""
        endpoint = self.desk.webhooks.get(_id(request), caller)
        if endpoint.is_default:
            raise WebhookNotFound("there is no webhook endpoint 'default' of yours")
        return endpoint

    def list_event_types(self, _request: Request, _caller: Caller) -> Response:
        return json_answer({"object": "list", "data": list(VIDEO_TYPES)})


def _read(
    fields: Mapping[str, Any], readers: Mapping[str, Reader], required: Sequence[str] = ()
) -> dict[str, Any]:
    values, wrong = read_each(fields, readers)
    wrong += [
        problem(name, "required", "it is missing; add it")
        for name in required
        if name not in fields
    ]
    if wrong:
        raise InvalidRequest(wrong)
    return values


def _endpoint_doc(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.public_id,
        "object": "webhook_endpoint",
        "name": endpoint.description,
        "url": endpoint.url,
        "event_types": list(endpoint.events),
        "created_at": int(endpoint.created_at),
        "updated_at": int(endpoint.updated_at),
        "signing_secret_hint": secret_of(endpoint)[-HINT_CHARS:],
    }


def _made(created: Created) -> Response:
    """Return the answer that shows a secret."""
    endpoint = created.endpoint
    doc = {**_endpoint_doc(endpoint), "signing_secret": secret_of(endpoint)}
    return json_answer(doc, headers=REPLAYED if created.is_replay else {})


def _id(request: Request) -> str:
    return str(request.path_params["webhook_endpoint_id"])
