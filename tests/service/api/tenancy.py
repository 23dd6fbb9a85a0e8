"""What of its own each route shows, for the tests that walk all of them.

A new route needs an entry in `CASES`: which scope it asks for, and how to ask it sensibly.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.testclient import TestClient

from tests.desks import Bench, finish
from tests.loras import TINY, make_pair, upload
from vidmill.domain.permission import Scope

SECRET = "nobody else may read this prompt"
READ, SUBMIT, ADMIN = Scope.READ, Scope.SUBMIT, Scope.ADMIN


@dataclass(frozen=True)
class Case:
    """How to ask one route.

    Attributes:
        ask: Further arguments of the request; `{task_id}` and the like become ids.
        denied: Its status where what the path names is not the caller's, or is not at all.
        is_alike: Owners hear the same of a finished task, or nobody hears anything but headers.
    """

    scope: Scope
    ask: Mapping[str, Any] = field(default_factory=dict)
    denied: int = 404
    is_alike: bool = False


CLIP = {"json": {"prompt": "a red ball"}}
ROWS = {"json": {"items": [{"custom_id": "a", "prompt": "a red ball"}]}}
HOOK = "https://93.184.215.14/hook"
NATIVE, WEBHOOKS = "/v1/t2v", "/v1/t2v/webhooks"
TASK, BATCH = f"{NATIVE}/tasks/{{task_id}}", f"{NATIVE}/batches/{{batch_id}}"
STORYBOARD = f"{NATIVE}/storyboards/{{storyboard_id}}"
SHOTS = {"json": {"shots": [{"prompt": "a red ball"}, {"prompt": "a blue cube"}]}}
WEBHOOK, DELIVERY = f"{WEBHOOKS}/{{webhook_id}}", f"{WEBHOOKS}/{{webhook_id}}/deliveries"
LORAS, LORA = f"{NATIVE}/loras", f"{NATIVE}/loras/{{lora_name}}"
WAN = "/api/v1/services/aigc"
SUBMIT_WAN = {
    "json": {"model": "wan2.2-t2v-plus", "input": {"prompt": "a red ball"}},
    "headers": {"X-DashScope-Async": "enable"},
}
ENDPOINTS = "/v1/webhook_endpoints"
ENDPOINT = f"{ENDPOINTS}/{{webhook_endpoint_id}}"

CASES: Mapping[tuple[str, str], Case] = {
    ("POST", f"{NATIVE}/generate"): Case(SUBMIT, CLIP),
    ("POST", f"{NATIVE}/estimate"): Case(READ, CLIP),
    ("GET", f"{NATIVE}/status"): Case(READ, {"params": {"task_id": "{task_id}"}}),
    ("GET", f"{NATIVE}/result/{{task_id}}"): Case(READ),
    ("GET", f"{NATIVE}/tasks"): Case(READ),
    ("GET", f"{NATIVE}/capabilities"): Case(READ),
    ("GET", f"{NATIVE}/quota"): Case(READ),
    ("GET", TASK): Case(READ),
    ("GET", f"{TASK}/explain"): Case(READ),
    ("GET", f"{TASK}/events"): Case(READ),
    ("GET", f"{TASK}/content"): Case(READ),
    ("HEAD", f"{TASK}/content"): Case(READ),
    ("DELETE", TASK): Case(SUBMIT),
    ("POST", f"{TASK}/regenerate"): Case(SUBMIT, {"json": {"duration": 3.0}}),
    ("POST", f"{TASK}/retry"): Case(SUBMIT),
    ("POST", f"{TASK}/cancel"): Case(SUBMIT),
    ("POST", f"{TASK}/run-next"): Case(SUBMIT),
    ("POST", f"{NATIVE}/batches"): Case(SUBMIT, ROWS),
    ("GET", f"{NATIVE}/batches"): Case(READ),
    ("GET", BATCH): Case(READ),
    ("GET", f"{BATCH}/rows"): Case(READ),
    ("GET", f"{BATCH}/results"): Case(READ),
    ("GET", f"{BATCH}/archive"): Case(READ),
    ("POST", f"{BATCH}/confirm"): Case(SUBMIT),
    ("POST", f"{BATCH}/pause"): Case(SUBMIT),
    ("POST", f"{BATCH}/resume"): Case(SUBMIT),
    ("POST", f"{BATCH}/cancel"): Case(SUBMIT),
    ("POST", f"{BATCH}/rerun-failed"): Case(SUBMIT),
    ("DELETE", BATCH): Case(SUBMIT),
    ("POST", f"{NATIVE}/storyboards"): Case(SUBMIT, SHOTS),
    ("POST", f"{NATIVE}/storyboards/estimate"): Case(READ, SHOTS),
    ("GET", f"{NATIVE}/storyboards"): Case(READ),
    ("GET", STORYBOARD): Case(READ),
    ("GET", f"{STORYBOARD}/content"): Case(READ),
    ("HEAD", f"{STORYBOARD}/content"): Case(READ, is_alike=True),
    ("POST", f"{STORYBOARD}/shots/{{number}}"): Case(SUBMIT),
    ("POST", f"{STORYBOARD}/cancel"): Case(SUBMIT),
    ("DELETE", STORYBOARD): Case(SUBMIT),
    ("GET", f"{NATIVE}/keys"): Case(ADMIN),
    ("POST", f"{NATIVE}/keys"): Case(ADMIN, {"json": {"name": "k", "scopes": ["admin"]}}),
    ("DELETE", f"{NATIVE}/keys/{{key_id}}"): Case(ADMIN),
    ("GET", LORAS): Case(READ),
    ("POST", LORAS): Case(ADMIN, {"data": {"name": "acme"}, "files": {"high": b"no weights"}}),
    ("GET", LORA): Case(READ),
    ("PATCH", LORA): Case(ADMIN, {"json": {"enabled": False}}),
    ("DELETE", LORA): Case(ADMIN),
    ("POST", WEBHOOKS): Case(ADMIN, {"json": {"url": HOOK}}),
    ("GET", WEBHOOKS): Case(ADMIN),
    ("GET", WEBHOOK): Case(ADMIN),
    ("PATCH", WEBHOOK): Case(ADMIN, {"json": {"description": "mine"}}),
    ("DELETE", WEBHOOK): Case(ADMIN),
    ("POST", f"{WEBHOOK}/rotate-secret"): Case(ADMIN),
    ("POST", f"{WEBHOOK}/test"): Case(ADMIN),
    ("POST", f"{WEBHOOK}/replay"): Case(ADMIN, {"json": {"since": "2027-01-15T08:00:00Z"}}),
    ("GET", DELIVERY): Case(ADMIN),
    ("GET", f"{DELIVERY}/{{delivery_id}}"): Case(ADMIN),
    ("POST", f"{DELIVERY}/{{delivery_id}}/redeliver"): Case(ADMIN),
    ("POST", f"{WAN}/video-generation/video-synthesis"): Case(SUBMIT, SUBMIT_WAN),
    ("POST", f"{WAN}/image2video/video-synthesis"): Case(SUBMIT, SUBMIT_WAN),
    ("GET", "/api/v1/uploads"): Case(READ),
    ("GET", "/api/v1/tasks"): Case(READ),
    ("GET", "/api/v1/tasks/"): Case(READ),
    ("GET", "/api/v1/tasks/{task_id}"): Case(READ, denied=200),
    ("GET", "/api/v1/tasks/{task_id}/"): Case(READ, denied=200),
    ("POST", "/api/v1/tasks/{task_id}/cancel"): Case(SUBMIT, denied=400, is_alike=True),
    ("POST", "/api/v1/tasks/{task_id}/cancel/"): Case(SUBMIT, denied=400, is_alike=True),
    ("POST", "/v1/videos"): Case(SUBMIT, CLIP),
    ("GET", "/v1/videos"): Case(READ),
    ("GET", "/v1/videos/{video_id}"): Case(READ),
    ("GET", "/v1/videos/{video_id}/content"): Case(READ),
    ("DELETE", "/v1/videos/{video_id}"): Case(SUBMIT),
    ("POST", "/v1/videos/{video_id}/remix"): Case(SUBMIT, CLIP),
    ("POST", "/v1/videos/edits"): Case(SUBMIT, CLIP),
    ("POST", "/v1/videos/extensions"): Case(SUBMIT, CLIP),
    ("POST", "/v1/videos/characters"): Case(SUBMIT, CLIP),
    ("GET", "/v1/videos/characters/{character_id}"): Case(READ, denied=400, is_alike=True),
    ("GET", "/v1/models"): Case(READ),
    ("GET", "/v1/models/{model:path}"): Case(READ),
    ("POST", ENDPOINTS): Case(ADMIN, {"json": {"url": HOOK, "enabled_events": []}}),
    ("GET", ENDPOINTS): Case(ADMIN),
    ("GET", "/v1/webhook_event_types"): Case(ADMIN),
    ("GET", ENDPOINT): Case(ADMIN),
    ("POST", ENDPOINT): Case(ADMIN, {"json": {"name": "mine"}}),
    ("DELETE", ENDPOINT): Case(ADMIN),
    ("POST", f"{ENDPOINT}/rotate_secret"): Case(ADMIN, {"json": {}}),
    ("POST", f"{ENDPOINT}/test"): Case(ADMIN, {"json": {"event_type": "video.completed"}}),
}

OPEN = {
    ("GET", "/openapi.json"),
    ("HEAD", "/openapi.json"),
    ("GET", "/files/{key:path}"),  # the link's signature is the permission
    ("HEAD", "/files/{key:path}"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),  # loopback or a token of its own
}
"""Routes that ask for no API key."""

UNKNOWN: Mapping[str, str] = {
    "task_id": "t2v_019355f0c3a97c4e9d0b5a6f1e2d3c4b",
    "video_id": "video_019355f0c3a97c4e9d0b5a6f1e2d3c4b",
    "batch_id": "bat_019355f0c3a97c4e9d0b5a6f1e2d3c4c",
    "storyboard_id": "sb_019355f0c3a97c4e9d0b5a6f1e2d3c4d",
    "webhook_id": "we_5d1c0e8f2a7b4c6d9e3f0a1b",
    "webhook_endpoint_id": "we_5d1c0e8f2a7b4c6d9e3f0a1c",
    "delivery_id": "msg_7c9e6679f8e24f3c8a1b5d2e4f6a8b0c",
    "key_id": "key_7",
    "character_id": "char_2",
    "lora_name": "nobodys-style-1",
}
"""Ids as long as real ones, which nobody has."""

Ids = Mapping[str, str]


def own_things(bench: Bench) -> Ids:
    """Let tenant 1 make one thing of each kind; return their ids by the paths' names."""
    made: Callable[[str, Any], dict[str, Any]]
    made = lambda path, body: bench.client.post(f"{NATIVE}/{path}", json=body).json()  # noqa: E731
    webhook_id = made("webhooks", {"url": HOOK})["id"]
    task_id = finish(bench, prompt=SECRET)  # the webhook hears of it
    rows = {"items": [{"custom_id": "a", "prompt": SECRET}], "name": SECRET}
    batch_id = made("batches?confirm=true", rows)["batch_id"]
    shots = [{"prompt": f"{SECRET} {number}"} for number in range(2)]
    storyboard_id = made("storyboards", {"shots": shots, "name": SECRET})["storyboard_id"]
    style = make_pair(bench.folder / "style", 1, config=TINY)
    log = bench.client.get(f"{WEBHOOKS}/{webhook_id}/deliveries").json()
    return {
        "task_id": task_id,
        "video_id": task_id.replace("t2v_", "video_"),
        "batch_id": batch_id,
        "storyboard_id": storyboard_id,
        "webhook_id": webhook_id,
        "webhook_endpoint_id": webhook_id,
        "delivery_id": log["data"][0]["id"],
        "key_id": made("keys", {"name": SECRET, "scopes": ["read"]})["id"],
        "character_id": "char_1",
        "lora_name": upload(bench.client, style, "somebodys-style").json()["name"],
    }


def ask(client: TestClient, route: tuple[str, str], ids: Ids) -> Any:
    """Send the route's request, with *ids* where it names things."""
    method, path = route
    given = dict(CASES[route].ask) if route in CASES else {}
    headers = {"X-Request-ID": "same", **given.pop("headers", {})}
    if "params" in given:
        given["params"] = {k: v.format_map(ids) for k, v in given["params"].items()}
    path = path.replace("{model:path}", "tiny").replace("{key:path}", "a/1/clip.mp4")
    path = path.replace("{number}", "1")
    return client.request(method, path.format_map(ids), headers=headers, **given)


def names_of(route: tuple[str, str]) -> list[str]:
    """Return which things the route's request names."""
    text = route[1] + str(CASES[route].ask.get("params", ""))
    return [name for name in re.findall(r"{(\w+)}", text) if name in UNKNOWN]
