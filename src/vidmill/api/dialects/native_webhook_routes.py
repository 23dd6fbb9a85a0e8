"""The native dialect's table of webhook routes."""

from collections.abc import Sequence

from vidmill.api.desk import Desk
from vidmill.api.dialects import native_webhook_models as models
from vidmill.api.dialects.native_route_parts import (
    OF_BODIES,
    OF_KEYS,
    REPLAYED,
    named,
    page_limit,
    query,
)
from vidmill.api.dialects.native_views import PREFIX
from vidmill.api.dialects.native_webhooks import WebhookDesk
from vidmill.api.repeats import PARAMETER as IDEMPOTENCY_KEY
from vidmill.api.routing import Answer, Route
from vidmill.domain import errors
from vidmill.domain.permission import Scope
from vidmill.domain.webhook import DeliveryState

_ALL = f"{PREFIX}/webhooks"
_ONE = f"{_ALL}/{{webhook_id}}"
_DELIVERY = f"{_ONE}/deliveries/{{delivery_id}}"
_WEBHOOK_ID = named("webhook_id", models.WEBHOOK_ID)
_DELIVERY_ID = named("delivery_id", models.DELIVERY_ID)
_LIST_PARAMETERS = (
    query("state", "Only these.", type="string", enum=list(DeliveryState)),
    page_limit("Deliveries"),
    query("cursor", "`next_cursor` of the page before, with the same filter.", type="string"),
)


def webhook_routes(desk: Desk) -> Sequence[Route]:
    """Return the routes, bound to *desk*."""
    webhooks = WebhookDesk(desk)
    return (*_endpoints(webhooks), *_one_endpoint(webhooks), *_log(webhooks), *_again(webhooks))


def _endpoints(webhooks: WebhookDesk) -> tuple[Route, ...]:
    made = Answer(
        description="It is told from now on; the secret is shown this once.",
        model=models.WebhookWithSecret,
        headers={
            "Location": "Where the endpoint is.",
            "Idempotency-Replayed": "`true`: the key was used before; this is what it made.",
        },
    )
    return (
        Route(
            method="POST",
            path=_ALL,
            handler=webhooks.create_webhook,
            summary="Register a webhook endpoint",
            permission=Scope.ADMIN,
            is_creating=True,
            body=models.WebhookBody,
            answers={201: made},
            errors=(
                *OF_BODIES,
                *OF_KEYS,
                errors.QuotaExceeded,
                errors.ServiceUnavailable,
            ),
            parameters=(IDEMPOTENCY_KEY,),
        ),
        Route(
            method="GET",
            path=_ALL,
            handler=webhooks.list_webhooks,
            summary="List webhook endpoints",
            permission=Scope.ADMIN,
            answers={200: Answer(description="All of them.", model=models.WebhookList)},
            errors=(errors.ServiceUnavailable,),
        ),
    )


def _one_endpoint(webhooks: WebhookDesk) -> tuple[Route, ...]:
    found = (errors.WebhookNotFound, errors.ServiceUnavailable)
    owned = (*found, errors.UnsupportedOperation)
    return (
        Route(
            method="GET",
            path=_ONE,
            handler=webhooks.get_webhook,
            summary="One webhook endpoint; of `default`, with its secret",
            permission=Scope.ADMIN,
            answers={200: Answer(description="The endpoint.", model=models.OneWebhook)},
            errors=found,
            parameters=(_WEBHOOK_ID,),
        ),
        Route(
            method="PATCH",
            path=_ONE,
            handler=webhooks.change_webhook,
            summary="Change a webhook endpoint, or switch it on or off",
            permission=Scope.ADMIN,
            body=models.WebhookChanges,
            answers={200: Answer(description="As it is now.", model=models.Webhook)},
            errors=(*OF_BODIES, *owned),
            parameters=(_WEBHOOK_ID,),
        ),
        Route(
            method="DELETE",
            path=_ONE,
            handler=webhooks.delete_webhook,
            summary="Delete a webhook endpoint and its log",
            permission=Scope.ADMIN,
            answers={204: Answer(description="It is told no more.", media_type="")},
            errors=owned,
            parameters=(_WEBHOOK_ID,),
        ),
        Route(
            method="POST",
            path=f"{_ONE}/rotate-secret",
            handler=webhooks.rotate_webhook_secret,
            summary="Give an endpoint a new secret; for a day the old one signs beside it",
            permission=Scope.ADMIN,
            is_creating=True,
            answers={
                200: Answer(
                    description="The secret.",
                    model=models.WebhookWithSecret,
                    headers=REPLAYED,
                )
            },
            errors=(
                *found,
                errors.InvalidRequest,
                *OF_KEYS,
            ),
            parameters=(_WEBHOOK_ID, IDEMPOTENCY_KEY),
        ),
        Route(
            method="POST",
            path=f"{_ONE}/test",
            handler=webhooks.test_webhook,
            summary="Send a `webhook.test` now, and see what comes back",
            permission=Scope.ADMIN,
            is_creating=True,
            answers={200: Answer(description="What came of it.", model=models.WebhookDelivery)},
            errors=(*owned, errors.WebhookDisabled),
            parameters=(_WEBHOOK_ID,),
        ),
    )


def _log(webhooks: WebhookDesk) -> tuple[Route, ...]:
    return (
        Route(
            method="GET",
            path=f"{_ONE}/deliveries",
            handler=webhooks.list_deliveries,
            summary="What an endpoint was told, the newest first",
            permission=Scope.ADMIN,
            answers={200: Answer(description="A page.", model=models.DeliveryPage)},
            errors=(
                errors.WebhookNotFound,
                errors.InvalidRequest,
                errors.InvalidCursor,
                errors.ServiceUnavailable,
            ),
            parameters=(_WEBHOOK_ID, *_LIST_PARAMETERS),
        ),
        Route(
            method="GET",
            path=_DELIVERY,
            handler=webhooks.get_delivery,
            summary="One delivery and all its attempts",
            permission=Scope.ADMIN,
            answers={200: Answer(description="The delivery.", model=models.WebhookDelivery)},
            errors=(errors.WebhookNotFound, errors.DeliveryNotFound, errors.ServiceUnavailable),
            parameters=(_WEBHOOK_ID, _DELIVERY_ID),
        ),
    )


def _again(webhooks: WebhookDesk) -> tuple[Route, ...]:
    return (
        Route(
            method="POST",
            path=f"{_DELIVERY}/redeliver",
            handler=webhooks.redeliver,
            summary="Make a delivery once more, under the same `webhook-id`",
            permission=Scope.ADMIN,
            is_creating=True,
            answers={202: Answer(description="It is due now.", model=models.WebhookDelivery)},
            errors=(
                errors.WebhookNotFound,
                errors.DeliveryNotFound,
                errors.WebhookDisabled,
                errors.ServiceUnavailable,
            ),
            parameters=(_WEBHOOK_ID, _DELIVERY_ID),
        ),
        Route(
            method="POST",
            path=f"{_ONE}/replay",
            handler=webhooks.replay_webhook,
            summary="Tell an endpoint again all that happened since an instant",
            permission=Scope.ADMIN,
            is_creating=True,
            body=models.ReplayBody,
            answers={202: Answer(description="It is due now.", model=models.ReplayAnswer)},
            errors=(
                *OF_BODIES,
                errors.WebhookNotFound,
                errors.WebhookDisabled,
                errors.ServiceUnavailable,
            ),
            parameters=(_WEBHOOK_ID,),
        ),
    )
