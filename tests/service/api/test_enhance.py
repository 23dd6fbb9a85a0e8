"""`enhance`: a language model writes the prompt out before anything is queued, or says no."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from structlog.testing import capture_logs

from tests.desks import Bench, make_bench
from tests.waiting import wait_until

pytestmark = pytest.mark.sqlite

WRITTEN = "A glossy red ball rolls across a sunlit wooden floor."
KEY = "the-operators-key"


@dataclass
class Chat:
    """A chat endpoint: what it was asked, and what it says."""

    says: Any = WRITTEN
    status: int = 200
    raw: bytes = b""
    pace: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        self.asked.append(await request.json())
        self.keys.append(request.headers["authorization"])
        if self.pace == "silent":
            await gone(request)
        if self.pace == "dripping":
            return StreamingResponse(drops(request))
        if self.raw:
            return Response(self.raw)
        message = {"role": "assistant", "content": self.says}
        return JSONResponse({"choices": [{"message": message}]}, status_code=self.status)


async def gone(request: Request) -> None:
    """Wait until the caller has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def drops(request: Request) -> AsyncIterator[bytes]:
    yield b" "
    await gone(request)


@contextmanager
def served(chat: Chat) -> Iterator[str]:
    app = Starlette(routes=[Route("/v1/chat/completions", chat.answer, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    assert wait_until(lambda: server.started, timeout_s=20.0, step_s=0.005)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[Chat, str]]:
    chat = Chat()
    with served(chat) as url:
        yield chat, url


@pytest.fixture
def chat(address: tuple[Chat, str]) -> Chat:
    fresh = Chat()
    address[0].__dict__.update(fresh.__dict__)
    return address[0]


@pytest.fixture
def bench(tmp_path: Path, address: tuple[Chat, str], chat: Chat) -> Iterator[Bench]:
    assert chat is address[0]
    made = make_bench(
        tmp_path,
        profile="a14b-quality",
        enhancer_url=address[1],
        enhancer_model="writer",
        enhancer_api_key=KEY,
    )
    yield made
    made.close()


def explained(bench: Bench, task: dict[str, Any]) -> dict[str, Any]:
    doc: dict[str, Any] = bench.client.get(f"/v1/t2v/tasks/{task['task_id']}/explain").json()
    return doc


def num_tasks(bench: Bench) -> int:
    return len(bench.client.get("/v1/t2v/tasks").json()["data"])


def test_the_text_is_drawn_and_the_original_is_kept(bench: Bench, chat: Chat) -> None:
    doc = explained(bench, bench.generate(enhance=True, camera="orbit"))

    assert doc["prompt"]["asked"] == "a red ball"
    assert doc["prompt"]["used"].startswith(f"{WRITTEN}, the camera slowly orbits")
    assert doc["enhancement"] == {"text": WRITTEN, "model": "writer", "version": "1"}
    assert (chat.asked[0]["model"], chat.keys) == ("writer", [f"Bearer {KEY}"])
    assert [said["role"] for said in chat.asked[0]["messages"]] == ["system", "user"]
    assert chat.asked[0]["messages"][1]["content"] == "a red ball"


def test_it_is_told_what_to_do_in_the_language_of_the_prompt(bench: Bench, chat: Chat) -> None:
    chat.says = "「赤いボールが床の上をゆっくり転がる。」"

    task = bench.generate(prompt="赤いボール", enhance=True)

    assert explained(bench, task)["enhancement"]["text"] == "赤いボールが床の上をゆっくり転がる。"
    assert "日本語" in chat.asked[0]["messages"][0]["content"]


def test_nobody_is_asked_who_was_not_asked_for(bench: Bench, chat: Chat) -> None:
    assert explained(bench, bench.generate())["enhancement"] is None
    assert chat.asked == []


def test_a_repeated_key_asks_once_and_has_the_same_task(bench: Bench, chat: Chat) -> None:
    body, headers = {"prompt": "a red ball", "enhance": True}, {"Idempotency-Key": "one"}
    first = bench.client.post("/v1/t2v/generate", json=body, headers=headers)

    second = bench.client.post("/v1/t2v/generate", json=body, headers=headers)

    assert second.json()["task_id"] == first.json()["task_id"]
    assert second.headers["Idempotency-Replayed"] == "true"
    assert len(chat.asked) == 1


def test_a_key_whose_task_was_deleted_asks_anew(bench: Bench, chat: Chat) -> None:
    body, headers = {"prompt": "a red ball", "enhance": True}, {"Idempotency-Key": "one"}
    first = bench.client.post("/v1/t2v/generate", json=body, headers=headers).json()
    bench.client.delete(f"/v1/t2v/tasks/{first['task_id']}")

    second = bench.client.post("/v1/t2v/generate", json=body, headers=headers).json()

    assert explained(bench, second)["enhancement"]["text"] == WRITTEN
    assert len(chat.asked) == 2


def test_another_seed_is_the_only_difference_of_a_regenerated_task(
    bench: Bench, chat: Chat
) -> None:
    task = bench.generate(enhance=True)
    chat.says = "A dull red ball lies still on grey stone."

    again = bench.client.post(f"/v1/t2v/tasks/{task['task_id']}/regenerate").json()
    other = bench.client.post(
        f"/v1/t2v/tasks/{task['task_id']}/regenerate", json={"prompt": "a dull ball"}
    ).json()

    assert explained(bench, again)["enhancement"]["text"] == WRITTEN
    assert explained(bench, other)["enhancement"]["text"] == chat.says
    assert len(chat.asked) == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"raw": b"<html>"},
        {"raw": b"[" * 300_000},
        {"says": None},
        {"says": '""'},
        {"says": "word " * 200},
        {"says": "a ball\x07"},
        {"says": "一个红色的球在地板上滚动"},
    ],
)
def test_what_cannot_be_used_refuses_the_request_and_queues_nothing(
    bench: Bench, chat: Chat, fault: dict[str, Any]
) -> None:
    chat.__dict__.update(fault)

    answer = bench.client.post("/v1/t2v/generate", json={"prompt": "a red ball", "enhance": True})

    assert (answer.status_code, answer.json()["code"]) == (503, "enhancer_unavailable")
    assert "without enhance" in answer.json()["detail"]
    assert "red ball" not in answer.text
    assert num_tasks(bench) == 0


def test_an_endpoint_that_is_not_there_refuses_the_request(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, enhancer_url="http://127.0.0.1:9/v1", enhancer_model="writer")

    answer = bench.client.post("/v1/t2v/generate", json={"prompt": "a red ball", "enhance": True})

    assert answer.json()["code"] == "enhancer_unavailable"
    bench.close()


@pytest.mark.parametrize("pace", ["silent", "dripping"])
def test_an_answer_that_takes_too_long_refuses_the_request(
    tmp_path: Path, address: tuple[Chat, str], chat: Chat, pace: str
) -> None:
    chat.pace = pace
    enhancer: dict[str, Any] = {"enhancer_url": address[1], "enhancer_model": "writer"}
    bench = make_bench(
        tmp_path, **enhancer, enhancer_api_key=KEY, enhancer_timeout_s=1.0, profile="a14b-quality"
    )

    with capture_logs() as said:
        body = {"prompt": "a red ball", "enhance": True}
        answer = bench.client.post("/v1/t2v/generate", json=body)

    assert (answer.status_code, answer.json()["code"]) == (503, "enhancer_unavailable")
    assert "gave no answer within 1 s" in answer.json()["detail"]
    assert num_tasks(bench) == 0
    (entry,) = [each for each in said if each["event"] == "enhancer_unavailable"]
    assert (entry["model"], entry["reason"]) == ("writer", "gave no answer within 1 s")
    assert "red ball" not in str(said)
    assert KEY not in str(said)
    bench.close()


def test_the_status_of_a_refusal_is_told(bench: Bench, chat: Chat) -> None:
    chat.status = 401

    answer = bench.client.post("/v1/t2v/generate", json={"prompt": "a red ball", "enhance": True})

    assert "answered with status 401" in answer.json()["detail"]


def test_an_estimate_says_that_the_prompt_would_be_enhanced_and_asks_nobody(
    bench: Bench, chat: Chat
) -> None:
    body = {"prompt": "a red ball", "seed": 7}
    bench.client.post("/v1/t2v/generate", json=body)

    plain = bench.client.post("/v1/t2v/estimate", json=body).json()
    doc = bench.client.post("/v1/t2v/estimate", json={**body, "enhance": True}).json()

    assert (plain["would_be_enhanced"], plain["cache_hit"]) == (False, True)
    assert (doc["would_be_enhanced"], doc["cache_hit"], doc["prompt"]) == (True, False, None)
    assert doc["price"] == plain["price"]
    assert chat.asked == []


def test_a_request_that_is_refused_anyway_sends_no_prompt(bench: Bench, chat: Chat) -> None:
    body = {"prompt": "a red ball", "enhance": True}

    answer = bench.other().post("/v1/t2v/generate", json={**body, "priority": "high"})

    assert answer.json()["code"] == "permission_denied"
    assert bench.client.post("/v1/t2v/generate", json={**body, "seed": -1}).status_code == 422
    assert chat.asked == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/t2v/storyboards", {"shots": [{"prompt": "x", "enhance": True}] * 2}),
        ("/v1/videos", {"prompt": "x", "enhance": True}),
    ],
)
def test_enhance_is_refused_where_it_is_not_done(
    bench: Bench, chat: Chat, path: str, body: dict[str, Any]
) -> None:
    answer = bench.client.post(path, json=body)

    assert answer.status_code in {400, 422}
    assert "enhance" in answer.text
    assert chat.asked == []


def test_a_row_of_a_batch_that_asks_for_it_is_refused_by_name(bench: Bench, chat: Chat) -> None:
    items = [{"prompt": "x", "enhance": True}, {"prompt": "y"}]
    batch = bench.client.post("/v1/t2v/batches", json={"items": items}).json()

    rows = bench.client.get(f"/v1/t2v/batches/{batch['batch_id']}/rows").json()["data"]

    assert batch["counts"]["invalid"] == 1
    assert rows[0]["problems"][0]["pointer"] == "#/enhance"
    assert chat.asked == []


def test_enhance_is_refused_with_the_reason_where_none_is_configured(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)

    for path in ("/v1/t2v/generate", "/v1/t2v/estimate"):
        answer = bench.client.post(path, json={"prompt": "x", "enhance": True})
        assert answer.status_code == 422
        assert "VIDMILL_ENHANCER_URL" in answer.text
    assert bench.client.get("/v1/t2v/capabilities").json()["enhance"] is False
    bench.close()
