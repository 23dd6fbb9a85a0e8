"""One attempt, and what receivers can do to it."""

import asyncio
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from tests.receivers import (
    Behave,
    Call,
    answering,
    babble,
    drip,
    dripping_head,
    flood,
    hang_up,
    header_flood,
    interim_flood,
    receiving,
    reset,
    silence,
)
from tests.waiting import wait_until
from vidmill.domain.webhook import Reply, secret_text
from vidmill.outbound.guard import Guard
from vidmill.outbound.sender import Sender

KEY = b"k" * 32
BODY = b'{"type":"webhook.test"}'


def local(_host: str) -> Sequence[str]:
    return ["127.0.0.1"]


def make_sender(*, deadline_s: float = 0.5, tls: ssl.SSLContext | None = None) -> Sender:
    """Return a sender that may call this machine, by whatever name."""
    guard = Guard(allow=["127.0.0.0/8"], is_http_allowed=True, resolve=local)
    return Sender(guard, clock=time.time, deadline_s=deadline_s, tls=tls)


def send(sender: Sender, url: str) -> Reply:
    return asyncio.run(sender.send(url, message_id="msg_1", body=BODY, keys=[KEY]))


def test_receiver_gets_the_bytes_signed_and_under_its_own_name() -> None:
    with receiving(answering(204)) as receiver:
        reply = send(make_sender(), f"http://hooks.example:{receiver.port}/a/b?c=d")
        [call] = receiver.calls
    assert (reply.status, reply.error, reply.is_success) == (204, None, True)
    assert call.line == "POST /a/b?c=d HTTP/1.1"
    assert call.headers["host"] == f"hooks.example:{receiver.port}"
    assert call.headers["content-type"] == "application/json"
    assert call.headers["user-agent"].startswith("Vidmill/")
    assert Webhook(secret_text(KEY)).verify(call.body, dict(call.headers)) == json.loads(BODY)


@pytest.mark.parametrize(
    ("behave", "status", "error"),
    [
        (answering(500), 500, None),
        (answering(410), 410, None),
        (drip, 200, None),
        (silence, None, "no answer within 0.5 s"),
        (interim_flood, None, "only interim answers"),
        (flood, 200, None),
        (reset, None, "the connection broke"),
        (babble, None, "the answer is not HTTP, or ends too early"),
        (header_flood, None, "more than 16384 bytes of headers"),
        (dripping_head, None, "no answer within 0.5 s"),
        (hang_up, None, "hung up"),
        (answering(200, "Content-Length: 7", body=b""), 200, None),
    ],
)
def test_attempt_ends_in_time_whatever_the_receiver_does(
    behave: Behave, status: int | None, error: str | None
) -> None:
    began = time.monotonic()
    with receiving(behave) as receiver:
        reply = send(make_sender(), receiver.url)
    assert (reply.status, reply.error) == (status, error)
    assert time.monotonic() - began < 3


def test_interim_answers_before_the_real_one_are_passed_over() -> None:
    def hint_first(connection: socket.socket, call: Call) -> None:
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        answering(201)(connection, call)

    with receiving(hint_first) as receiver:
        assert send(make_sender(), receiver.url).status == 201


def test_receiver_of_a_long_answer_without_a_length_is_heard_out() -> None:
    heard: list[bool] = []

    def chat(connection: socket.socket, _call: Call) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 30_000)
        connection.shutdown(socket.SHUT_WR)
        heard.append(connection.recv(1) == b"")

    with receiving(chat) as receiver:
        assert send(make_sender(), receiver.url).status == 200
        assert wait_until(lambda: bool(heard), timeout_s=5)
    assert heard == [True]


def test_redirect_is_not_followed_and_is_no_success() -> None:
    with (
        receiving(answering(200)) as inside,
        receiving(answering(307, f"Location: {inside.url}")) as receiver,
    ):
        reply = send(make_sender(), receiver.url)
        assert (reply.status, reply.is_success, inside.calls) == (307, False, [])


def test_nobody_listening_is_told() -> None:
    with receiving(answering(200)) as receiver:
        url = receiver.url
    assert send(make_sender(), url).error == "no connection"


def test_refused_address_is_never_called() -> None:
    with receiving(answering(200)) as receiver:
        guard = Guard(is_http_allowed=True, resolve=local)
        reply = send(Sender(guard, clock=time.time), receiver.url.replace("127.0.0.1", "a.example"))
        assert receiver.calls == []
    assert reply.error is not None
    assert reply.error.startswith("not called: the host 'a.example' is not on the public internet")


def test_name_that_changes_its_mind_after_the_check_gains_nothing() -> None:
    """The second look-up would lead inside; there is none."""
    asked: list[str] = []

    def resolve(host: str) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    guard = Guard(allow=["127.0.0.1"], is_http_allowed=True, resolve=resolve)
    sender = Sender(guard, clock=time.time)
    with receiving(answering(200)) as receiver:
        url = f"http://rebinding.example:{receiver.port}/"
        first, second = send(sender, url), send(sender, url)
        assert len(receiver.calls) == 1
    assert (first.status, second.status) == (200, None)
    assert asked == ["rebinding.example", "rebinding.example"]


def test_second_address_is_tried_when_the_first_takes_no_connection() -> None:
    guard = Guard(
        allow=["127.0.0.0/8"], is_http_allowed=True, resolve=lambda _: ["127.0.0.9", "127.0.0.1"]
    )
    with receiving(answering(200)) as receiver:
        reply = send(Sender(guard, clock=time.time), f"http://two.example:{receiver.port}/")
    assert reply.status == 200


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("120", 120.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("9" * 400, 999_999_999.0),
    ],
)
def test_retry_after_is_read_in_both_its_forms(said: str, expected: float | None) -> None:
    with receiving(answering(429, f"Retry-After: {said}")) as receiver:
        assert send(make_sender(), receiver.url).retry_after_s == expected


def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(answering(200)) as proxy, receiving(answering(200)) as receiver:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        send(make_sender(), receiver.url)
        assert (len(proxy.calls), len(receiver.calls)) == (0, 1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of `hooks.example` and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=hooks.example"
    command += f" -addext subjectAltName=DNS:hooks.example -keyout {path}.key -out {path}"
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.key").read_bytes())
    return path


def send_over_tls(certificate: Path, host: str, tls: ssl.SSLContext | None) -> Reply:
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate)
    with receiving(answering(200), tls=served) as receiver:
        return send(make_sender(deadline_s=5, tls=tls), f"https://{host}:{receiver.port}/")


def test_certificate_of_the_name_is_accepted_though_the_address_was_dialled(
    certificate: Path,
) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate))
    assert send_over_tls(certificate, "hooks.example", trusting).status == 200


def test_certificate_of_another_name_is_refused(certificate: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate))
    error = send_over_tls(certificate, "other.example", trusting).error
    assert error == "TLS failed: CERTIFICATE_VERIFY_FAILED"


def test_certificate_nobody_vouches_for_is_refused(certificate: Path) -> None:
    error = send_over_tls(certificate, "hooks.example", None).error
    assert error == "TLS failed: CERTIFICATE_VERIFY_FAILED"
