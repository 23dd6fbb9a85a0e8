"""Webhooks are taken only with a right signature and a time near now."""

import base64
import json
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from vidmill.client import WebhookRefused, verify_webhook

OLD = "whsec_" + base64.b64encode(b"o" * 32).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()
NOW = 1_790_000_000
BODY = json.dumps(
    {
        "id": "msg_1",
        "type": "t2v.task.completed",
        "data": {"task_id": "t2v_1", "status": "completed"},
    }
).encode()


def sign(*secrets: str, body: bytes = BODY, at: int = NOW) -> dict[str, str]:
    """Return the headers that the reference library makes."""
    instant = datetime.fromtimestamp(at, UTC)
    signatures = [Webhook(secret).sign("msg_1", instant, body.decode()) for secret in secrets]
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(at),
        "Webhook-Signature": " ".join(signatures),
    }


def test_a_right_signature_gives_the_event_and_its_task() -> None:
    event = verify_webhook(sign(NEW), BODY, NEW, now=NOW)
    assert (event.webhook_id, event.type) == ("msg_1", "t2v.task.completed")
    assert event.task is not None
    assert (event.task.task_id, event.task.status) == ("t2v_1", "completed")


def test_a_body_as_text_will_do() -> None:
    assert verify_webhook(sign(NEW), BODY.decode(), NEW, now=NOW).webhook_id == "msg_1"


@pytest.mark.parametrize("signers", [(OLD, NEW), (NEW, OLD), (OLD,), (NEW,)])
def test_while_secrets_change_either_will_do(signers: tuple[str, ...]) -> None:
    assert verify_webhook(sign(*signers), BODY, [NEW, OLD], now=NOW).webhook_id == "msg_1"
    assert verify_webhook(sign(OLD, NEW), BODY, signers[0], now=NOW).webhook_id == "msg_1"


def test_a_signature_of_another_version_beside_it_does_no_harm() -> None:
    headers = sign(NEW)
    headers["Webhook-Signature"] = f"v1a,AAAA {headers['Webhook-Signature']} v1,é"
    assert verify_webhook(headers, BODY, NEW, now=NOW).webhook_id == "msg_1"


@pytest.mark.parametrize("changed", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_a_changed_header_is_refused(changed: str) -> None:
    headers = sign(NEW)
    headers[changed] = {"Webhook-Timestamp": str(NOW + 1)}.get(changed, "v1,msg_2")
    with pytest.raises(WebhookRefused, match="no signature"):
        verify_webhook(headers, BODY, NEW, now=NOW)


@pytest.mark.parametrize("missing", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_a_missing_header_is_named(missing: str) -> None:
    headers = sign(NEW)
    del headers[missing]
    with pytest.raises(WebhookRefused, match=missing.lower()):
        verify_webhook(headers, BODY, NEW, now=NOW)


@pytest.mark.parametrize("body", [b"", BODY + b" ", BODY.replace(b"completed", b"cancelled")])
def test_a_changed_body_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookRefused):
        verify_webhook(sign(NEW), body, NEW, now=NOW)


def test_another_secret_is_refused() -> None:
    with pytest.raises(WebhookRefused):
        verify_webhook(sign(OLD), BODY, NEW, now=NOW)


@pytest.mark.parametrize(("off_s", "is_taken"), [(300, True), (-300, True), (301, False)])
def test_age_is_bounded_either_way(off_s: int, *, is_taken: bool) -> None:
    if is_taken:
        verify_webhook(sign(NEW), BODY, NEW, now=NOW + off_s)
        return
    for now in (NOW + off_s, NOW - off_s):
        with pytest.raises(WebhookRefused, match="300 s off is the limit"):
            verify_webhook(sign(NEW), BODY, NEW, now=now)


def test_a_timestamp_that_is_none_is_refused() -> None:
    with pytest.raises(WebhookRefused, match="Unix seconds"):
        verify_webhook({**sign(NEW), "Webhook-Timestamp": "nan"}, BODY, NEW, now=NOW)


@pytest.mark.parametrize("secret", ["whsec_!!!", "whsec_", "é"])
def test_what_is_no_secret_is_a_mistake_of_the_caller_and_is_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="secret") as caught:
        verify_webhook(sign(NEW), BODY, secret, now=NOW)
    assert "!!!" not in str(caught.value)


@pytest.mark.parametrize("body", [b"[]", b"nonsense", b'{"type": 5}'])
def test_a_signed_body_that_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookRefused, match="no event"):
        verify_webhook(sign(NEW, body=body), body, NEW, now=NOW)


def test_an_event_of_an_erased_task_or_of_a_batch_has_no_task() -> None:
    for doc in (
        {"type": "t2v.task.completed", "data": {"task_id": "t2v_1"}},
        {"type": "t2v.batch.completed", "data": {"batch_id": "bat_1", "status": "completed"}},
    ):
        body = json.dumps(doc).encode()
        assert verify_webhook(sign(NEW, body=body), body, NEW, now=NOW).task is None
