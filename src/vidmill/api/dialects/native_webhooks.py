"""The native dialect's webhook handlers: endpoints, the log of deliveries, and telling again."""

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from vidmill.api.answers import json_answer
from vidmill.api.body import read_json
from vidmill.api.cursors import make_cursor, read_cursor
from vidmill.api.desk import Desk
from vidmill.api.dialects import native_query
from vidmill.api.dialects import native_webhook_models as models
from vidmill.api.dialects.native_request import field_problem
from vidmill.api.dialects.native_views import PREFIX, instant
from vidmill.api.load import leave
from vidmill.api.repeats import REPLAYED, read_key
from vidmill.domain.errors import FieldProblem, InvalidRequest
from vidmill.domain.webhook import DeliveryState
from vidmill.services.access import Caller
from vidmill.services.webhooks import secret_of
from vidmill.store.deliveries import Delivery
from vidmill.store.webhooks import Endpoint

Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True)
class WebhookDesk:
    """The handlers, one per route of `webhook_routes`."""

    desk: Desk

    async def create_webhook(self, request: Request, caller: Caller) -> Response:
        data = await read_json(request)
        body = _read(models.WebhookBody, data)
        key = read_key(request, {"create_webhook": data})
        with self.desk.under_way.alone(caller, key):
            created = await self.desk.webhooks.create(
                caller, url=body.url, events=body.events, description=body.description, key=key
            )
        headers = {"Location": f"{PREFIX}/webhooks/{created.endpoint.public_id}"}
        return json_answer(
            _with_secret(created.endpoint),
            status=201,
            headers=headers | REPLAYED if created.is_replay else headers,
        )

    def list_webhooks(self, _request: Request, caller: Caller) -> Response:
        found = self.desk.webhooks.endpoints(caller)
        return json_answer({"data": [_webhook_doc(endpoint) for endpoint in found]})

    def get_webhook(self, request: Request, caller: Caller) -> Response:
        endpoint = self.desk.webhooks.get(_webhook_id(request), caller)
        # Nobody creates `default`, so this is where its secret is learnt.
        doc = _with_secret(endpoint) if endpoint.is_default else _webhook_doc(endpoint)
        return json_answer(doc)

    async def change_webhook(self, request: Request, caller: Caller) -> Response:
        body = _read(models.WebhookChanges, await read_json(request))
        changes = body.model_dump(exclude_none=True)
        if "enabled" in changes:
            changes["is_enabled"] = changes.pop("enabled")
        changed = await self.desk.webhooks.change(_webhook_id(request), caller, changes)
        return json_answer(_webhook_doc(changed))

    def delete_webhook(self, request: Request, caller: Caller) -> Response:
        self.desk.webhooks.delete(_webhook_id(request), caller)
        return Response(status_code=204)

    def rotate_webhook_secret(self, request: Request, caller: Caller) -> Response:
        webhook_id = _webhook_id(request)
        key = read_key(request, {"rotate_secret": webhook_id})
        with self.desk.under_way.alone(caller, key):
            rotated = self.desk.webhooks.rotate(webhook_id, caller, key=key)
        return json_answer(
            _with_secret(rotated.endpoint), headers=REPLAYED if rotated.is_replay else {}
        )

    async def test_webhook(self, request: Request, caller: Caller) -> Response:
        leave(request.scope)  # the receiver may take as long as an attempt may
        delivery = await self.desk.webhooks.test(_webhook_id(request), caller)
        return json_answer(_delivery_doc(delivery))

    def list_deliveries(self, request: Request, caller: Caller) -> Response:
        asked = native_query.read_query(request, DELIVERY_PARAMETERS)
        cursor = asked.pop("cursor", None)
        limit = asked.pop("limit", native_query.LIMIT_DEFAULT)
        webhook_id = _webhook_id(request)
        question = {**asked, "webhook": webhook_id, "tenant": caller.tenant_id}
        secret = self.desk.app.signing_secret
        page = self.desk.webhooks.deliveries(
            webhook_id,
            caller,
            limit=limit,
            after=None if cursor is None else read_cursor(cursor, question, secret=secret),
            state=asked.get("state"),
        )
        following = page.after and make_cursor(page.after, question, secret=secret)
        doc = {
            "data": [_delivery_doc(delivery) for delivery in page.deliveries],
            "has_more": page.after is not None,
            "next_cursor": following,
        }
        return json_answer(doc)

    def get_delivery(self, request: Request, caller: Caller) -> Response:
        delivery = self.desk.webhooks.delivery(_webhook_id(request), _delivery_id(request), caller)
        return json_answer(_delivery_doc(delivery))

    def redeliver(self, request: Request, caller: Caller) -> Response:
        again = self.desk.webhooks.redeliver(_webhook_id(request), _delivery_id(request), caller)
        return json_answer(_delivery_doc(again), status=202)

    async def replay_webhook(self, request: Request, caller: Caller) -> Response:
        body = _read(models.ReplayBody, await read_json(request))
        try:
            since = native_query.instant(body.since)
        except ValueError as error:
            problem = FieldProblem(pointer="#/since", code="not_offered", message=str(error))
            raise InvalidRequest([problem]) from None
        replayed = await run_in_threadpool(
            self.desk.webhooks.replay, _webhook_id(request), caller, since=since, types=body.types
        )
        doc = {"replayed": replayed.count, "continue_since": instant(replayed.continue_from)}
        return json_answer(doc, status=202)


def _state(text: str) -> DeliveryState:
    try:
        return DeliveryState(text)
    except ValueError:
        raise ValueError(f"choose one of: {', '.join(DeliveryState)}") from None


DELIVERY_PARAMETERS: dict[str, native_query.Parser] = {
    "state": _state,
    "limit": native_query.page_size,
    "cursor": str,
}


def _read(model: type[Body], data: object) -> Body:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise InvalidRequest(
            [field_problem(detail, model.model_fields) for detail in details]
        ) from None


def _webhook_id(request: Request) -> str:
    return str(request.path_params["webhook_id"])


def _delivery_id(request: Request) -> str:
    return str(request.path_params["delivery_id"])


def _webhook_doc(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.public_id,
        "url": endpoint.url,
        "events": endpoint.events,
        "description": endpoint.description,
        "enabled": endpoint.is_enabled,
        "disabled_reason": endpoint.disabled_reason,
        "failing_since": instant(endpoint.failing_since),
        "rests_until": instant(endpoint.rest_until),
        "old_secret_until": instant(endpoint.old_secret_until),
        "created_at": instant(endpoint.created_at),
        "updated_at": instant(endpoint.updated_at),
    }


def _with_secret(endpoint: Endpoint) -> dict[str, Any]:
    return {**_webhook_doc(endpoint), "secret": secret_of(endpoint)}


def _delivery_doc(delivery: Delivery) -> dict[str, Any]:
    is_pending = delivery.state is DeliveryState.PENDING
    return {
        "id": delivery.public_id,
        "type": delivery.type,
        "subject": delivery.subject,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "next_attempt_at": instant(delivery.due_at) if is_pending else None,
        "created_at": instant(delivery.created_at),
        "ended_at": instant(delivery.ended_at),
        "log": [{**entry, "at": instant(entry["at"])} for entry in delivery.log],
    }
