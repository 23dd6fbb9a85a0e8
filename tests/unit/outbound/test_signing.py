"""Signatures, checked by other people's libraries."""

import base64
import time
from collections.abc import Callable, Mapping

import pytest
from openai import OpenAI
from standardwebhooks import Webhook as StandardWebhook
from svix.webhooks import Webhook as SvixWebhook

from vidmill.domain.webhook import secret_text
from vidmill.outbound.signing import headers, signature

NEW, OLD, OTHER = b"n" * 32, b"o" * 32, b"x" * 32
BODY = '{"type":"t2v.task.completed","data":{"prompt":"红色的球"}}'.encode()

Verify = Callable[[str, bytes, Mapping[str, str]], None]


def by_standardwebhooks(secret: str, body: bytes, given: Mapping[str, str]) -> None:
    StandardWebhook(secret).verify(body, dict(given))


def by_svix(secret: str, body: bytes, given: Mapping[str, str]) -> None:
    SvixWebhook(secret).verify(body, dict(given))


def by_openai(secret: str, body: bytes, given: Mapping[str, str]) -> None:
    client = OpenAI(api_key="-", webhook_secret=secret)
    client.webhooks.verify_signature(body, dict(given))


VERIFIERS: dict[str, Verify] = {
    "standardwebhooks": by_standardwebhooks,
    "svix": by_svix,
    "openai": by_openai,
}


@pytest.fixture(params=VERIFIERS)
def verify(request: pytest.FixtureRequest) -> Verify:
    return VERIFIERS[request.param]


def signed(*keys: bytes, age_s: int = 0, message_id: str = "msg_1") -> dict[str, str]:
    timestamp = int(time.time()) - age_s
    return headers(keys, message_id=message_id, timestamp=timestamp, body=BODY)


def test_signature_is_that_of_the_published_example() -> None:
    """Of the Standard Webhooks specification."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature(
        key,
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_receiver_with_the_secret_accepts(verify: Verify) -> None:
    verify(secret_text(NEW), BODY, signed(NEW))


@pytest.mark.parametrize("known", [NEW, OLD])
def test_while_rotating_receivers_with_either_secret_accept(verify: Verify, known: bytes) -> None:
    verify(secret_text(known), BODY, signed(NEW, OLD))


@pytest.mark.parametrize(
    ("secret", "body", "given"),
    [
        (OTHER, BODY, signed(NEW, OLD)),
        (NEW, BODY + b" ", signed(NEW)),
        (NEW, BODY, {**signed(NEW), "webhook-id": "msg_2"}),
        (NEW, BODY, signed(NEW, age_s=400)),
    ],
    ids=["another secret", "another body", "another id", "too old"],
)
def test_receiver_refuses_what_was_not_signed_so(
    verify: Verify, secret: bytes, body: bytes, given: Mapping[str, str]
) -> None:
    with pytest.raises(Exception, match=r".+"):
        verify(secret_text(secret), body, given)
