"""Receives Vidmill's webhooks: checks the signature, drops what it has seen, answers at once.

    VIDMILL_WEBHOOK_SECRET=whsec_... python webhook_receiver.py [port]

Needs Python alone. While a secret is being rotated, give both, with a space between them.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_S = 300
BODY_MAX_BYTES = 1_000_000
REMEMBERED = 10_000

seen: OrderedDict[str, None] = OrderedDict()
"""Ids of events that were dealt with. A real receiver keeps them in its database."""


def is_genuine(headers: Mapping[str, str], body: bytes, secrets: str, *, now: float) -> bool:
    """Whether the request was signed with one of *secrets* within the last five minutes."""
    try:
        age_s = abs(now - int(headers["webhook-timestamp"]))
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        given = headers["webhook-signature"].encode().split()
    except (KeyError, ValueError):
        return False
    if age_s > TOLERANCE_S:
        return False
    for secret in secrets.split():
        key = base64.b64decode(secret.removeprefix("whsec_"))
        digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
        # Two signatures may come at once; one that fits is enough.
        if any(hmac.compare_digest(b"v1," + digest, one) for one in given):
            return True
    return False


def deal_with(event: Mapping[str, object]) -> None:
    """Do what is to be done; quickly, or put it into a queue of your own."""
    print(event["type"], json.dumps(event["data"], ensure_ascii=False), flush=True)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", "0"))
        if not 0 <= length <= BODY_MAX_BYTES:
            self.answer(413)
            return
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not is_genuine(headers, body, os.environ["VIDMILL_WEBHOOK_SECRET"], now=time.time()):
            self.answer(401)
            return
        message_id = headers["webhook-id"]
        if message_id not in seen:  # the same event may come more than once
            deal_with(json.loads(body))
            seen[message_id] = None
            if len(seen) > REMEMBERED:
                seen.popitem(last=False)
        self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
        """Say nothing."""


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
