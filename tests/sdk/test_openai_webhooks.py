"""Webhooks as the unmodified `openai` SDKs see them: endpoints, and events that really came."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests import hooks
from tests.desks import Bench
from tests.sdk.openai_surfaces import Sdk
from tests.servers import deliver, fail, working

TYPES = ["video.completed", "video.failed"]


class Receiver:
    """A webhook receiver of this machine that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], str]] = []
        got = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def test_endpoints_are_managed_and_their_events_unwrapped(
    newest: Sdk, bench: Bench, receiver: Receiver
) -> None:
    bench.clock.now = time.time()  # the SDK believes no signature of another time
    made = newest.ask("webhooks.create", name="mine", url=receiver.url, event_types=TYPES)
    assert (made["name"], made["event_types"]) == ("mine", TYPES)
    assert made["signing_secret"].endswith(made["signing_secret_hint"])

    tested = newest.ask("webhooks.test", args=[made["id"]], event_type="video.completed")
    rotated = newest.ask(
        "webhooks.rotate_secret", args=[made["id"]], keep_old_secret_active_for_24_hours=True
    )
    newest.ask("webhooks.test", args=[made["id"]], event_type="video.failed")
    changed = newest.ask("webhooks.update", args=[made["id"]], name="ours")

    assert (tested["status_code"], tested["success"]) == (200, True)
    assert changed["name"] == "ours"
    assert [e["id"] for e in newest.ask("webhooks.list")["data"]] == [made["id"]]
    assert newest.ask("webhooks.event_types.list")["data"] == TYPES
    for secret in (made["signing_secret"], rotated["signing_secret"]):
        headers, body = receiver.got[-1]
        event = newest.ask("unwrap", body=body, headers=headers, client={"webhook_secret": secret})
        assert "raised" not in event, event
        assert (event["type"], event["video"][:6]) == ("video.failed", "video_")
    assert newest.ask("webhooks.delete", args=[made["id"]])["deleted"] is True
    assert newest.ask("webhooks.retrieve", args=[made["id"]])["status"] == 404


@pytest.fixture
def told(sdk: Sdk, bench: Bench, receiver: Receiver) -> tuple[str, list[str]]:
    """Let a video be completed and one fail; return the secret and the ids, once both are told."""
    bench.clock.now = time.time()
    made = hooks.create(bench.client, receiver.url, events=TYPES)
    with working(bench, deliver, fail):
        ids = [
            sdk.ask("videos.create_and_poll", prompt=prompt, poll_interval_ms=50)["id"]
            for prompt in ("one", "two")
        ]
    hooks.deliver(bench)
    return made["secret"], ids


def test_what_is_delivered_of_real_videos_is_unwrapped(
    sdk: Sdk, receiver: Receiver, told: tuple[str, list[str]]
) -> None:
    secret, (done, lost) = told
    events = [
        sdk.ask("unwrap", body=body, headers=headers, client={"webhook_secret": secret})
        for headers, body in receiver.got
    ]

    found = {event["type"]: event["video"] for event in events}
    assert found == {"video.completed": done, "video.failed": lost}
    assert len({event["id"] for event in events}) == 2


def test_what_was_changed_on_its_way_or_signed_by_another_is_not_unwrapped(
    sdk: Sdk, bench: Bench, receiver: Receiver, told: tuple[str, list[str]]
) -> None:
    secret, _ = told
    others = hooks.create(bench.client, receiver.url, events=TYPES)["secret"]
    headers, body = receiver.got[0]
    forged = body.replace("video_", "video_0")
    late = {**headers, "webhook-timestamp": str(int(time.time()) - 301)}

    for sent, sent_headers, known in (
        (forged, headers, secret),
        (body, headers, others),
        (body, late, secret),
    ):
        client = {"webhook_secret": known}
        refused = sdk.ask("unwrap", body=sent, headers=sent_headers, client=client)
        assert refused["raised"] == "InvalidWebhookSignatureError"
