"""What receivers of webhooks get."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.builders import START
from tests.desks import Bench, finish
from tests.hooks import HOOKS, bodies, create, deliver, make_hook_bench, problem
from tests.outboxes import default_of, outbox, record
from tests.receivers import answering, receiving
from vidmill.api.desk import Desk
from vidmill.outbound.signing import signature
from vidmill.store import jobs

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = make_hook_bench(tmp_path)
    yield made
    made.close()


def test_finished_task_arrives_as_the_status_says_it(bench: Bench) -> None:
    with receiving(answering(204)) as receiver:
        create(bench.client, receiver.url)
        task_id = finish(bench)
        deliver(bench)
        [body] = bodies(receiver)
    status = bench.client.get(f"/v1/t2v/status?task_id={task_id}").json()
    finished = datetime.fromtimestamp(START, UTC).isoformat(timespec="milliseconds")
    assert body == {
        "id": "1.999999",
        "seq": 999_999,
        "type": "t2v.task.completed",
        "timestamp": finished.replace("+00:00", "Z"),
        "data": status,
    }
    assert bench.client.get(body["data"]["result_url"]).content == b"0123456789"


def test_body_is_small_even_with_the_longest_prompt(bench: Bench) -> None:
    with receiving(answering(204)) as receiver:
        create(bench.client, receiver.url)
        finish(bench, prompt="長" * 200, client_reference="r" * 200)
        deliver(bench)
        assert len(receiver.calls[0].body) < 20_000


def test_links_lead_to_the_server_where_no_public_url_is_set(tmp_path: Path) -> None:
    bench = make_hook_bench(tmp_path, public_url="")
    with receiving(answering(204)) as receiver:
        create(bench.client, receiver.url)
        finish(bench)
        deliver(bench)
        [body] = bodies(receiver)
    bench.close()
    assert body["data"]["result_url"].startswith("http://here.test/files/")


def test_erased_task_is_told_of_by_its_id_alone(bench: Bench) -> None:
    with receiving(answering(204)) as receiver:
        create(bench.client, receiver.url)
        task_id = finish(bench)
        assert bench.client.delete(f"/v1/t2v/tasks/{task_id}").status_code == 204
        deliver(bench)
        [body] = bodies(receiver)
    assert (body["type"], body["data"]) == ("t2v.task.completed", {"task_id": task_id})


def test_endpoint_for_openai_gets_events_in_openais_shape(bench: Bench) -> None:
    with receiving(answering(204)) as receiver:
        create(bench.client, receiver.url, events=["video.completed"])
        task_id = finish(bench)
        deliver(bench)
        [call] = receiver.calls
    assert json.loads(call.body) == {
        "id": call.headers["webhook-id"].replace("msg_", "evt_"),
        "object": "event",
        "type": "video.completed",
        "created_at": int(START),
        "data": {"id": task_id.replace("t2v_", "video_")},
    }


def test_url_of_a_task_is_told_signed_with_the_default_secret(bench: Bench) -> None:
    secret = bench.client.get(f"{HOOKS}/default").json()["secret"]
    with receiving(answering(204)) as receiver:
        task_id = finish(bench, webhook_url=receiver.url)
        deliver(bench)
        [call] = receiver.calls
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = signature(
        key, message_id=call.headers["webhook-id"], timestamp=int(START), body=call.body
    )
    assert call.headers["webhook-signature"] == expected
    assert json.loads(call.body)["data"]["task_id"] == task_id


def test_url_of_a_task_that_leads_inside_is_refused_at_the_door(bench: Bench) -> None:
    body = {"prompt": "a red ball", "webhook_url": "https://10.0.0.1/"}
    answer = bench.client.post("/v1/t2v/generate", json=body)
    assert problem(answer) == (422, "invalid_request", ["#/webhook_url"])


def test_finished_batch_is_told_with_its_counts(bench: Bench) -> None:
    with receiving(answering(204)) as receiver:
        create(bench.client, receiver.url, events=["t2v.batch.completed"])
        rows = {"items": [{"prompt": "a red ball"}]}
        batch = bench.client.post("/v1/t2v/batches?confirm=true", json=rows).json()
        bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="black"))
        shown = bench.client.get(f"/v1/t2v/batches/{batch['batch_id']}").json()
        deliver(bench)
        [body] = bodies(receiver)
    assert body["type"] == "t2v.batch.completed"
    assert body["data"] == shown


def test_storyboard_that_failed_is_told_with_its_shots(bench: Bench) -> None:
    with receiving(answering(204)) as receiver:
        create(bench.client, receiver.url, events=["t2v.storyboard.failed"])
        shots = {"shots": [{"prompt": "red"}, {"prompt": "blue"}]}
        made = bench.client.post("/v1/t2v/storyboards", json=shots).json()
        for _ in range(2):
            bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="black"))
        shown = bench.client.get(made["links"]["self"]).json()
        deliver(bench)
        [body] = bodies(receiver)
    assert body["type"] == "t2v.storyboard.failed"
    assert body["data"] == shown


def test_body_of_a_storyboard_is_small_even_with_as_many_shots_as_may_be(bench: Bench) -> None:
    with receiving(answering(204)) as receiver:
        create(bench.client, receiver.url, events=["t2v.storyboard.failed"])
        shots = [{"prompt": f"{n:02}" + "長" * 198, "duration": 3.0} for n in range(20)]
        assert bench.client.post("/v1/t2v/storyboards", json={"shots": shots}).status_code == 202
        for _ in shots:
            bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="長" * 200))
        Desk.of(bench.app).storyboards.keeper.tend()
        deliver(bench)
        assert len(receiver.calls[0].body) < 50_000


def test_failed_task_says_why(bench: Bench) -> None:
    with receiving(answering(204)) as receiver:
        create(bench.client, receiver.url)
        bench.generate()
        bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="every frame is black"))
        deliver(bench)
        [body] = bodies(receiver)
    assert body["type"] == "t2v.task.failed"
    assert body["data"]["error"]["message"] == "every frame is black"


@pytest.mark.parametrize(("status", "state"), [(204, "delivered"), (500, "dead")])
def test_test_event_is_sent_once_and_its_outcome_told_at_once(
    bench: Bench, status: int, state: str
) -> None:
    with receiving(answering(status)) as receiver:
        made = create(bench.client, receiver.url)
        told = bench.client.post(f"{HOOKS}/{made['id']}/test").json()
        bench.clock.advance(100)
        deliver(bench)
        [body] = bodies(receiver)
    assert (told["state"], told["log"][0]["status"]) == (state, status)
    assert (body["id"], body["type"]) == (told["id"], "webhook.test")
    assert body["data"]["webhook_id"] == made["id"]


def test_metrics_tell_what_became_of_attempts_and_how_late_they_are(bench: Bench) -> None:
    with receiving(answering(204)) as receiver:
        create(bench.client, receiver.url)
        record(bench.app.db, "bat_1")
        bench.clock.advance(7)
        client = TestClient(bench.api, client=("127.0.0.1", 1))
        assert "vidmill_webhook_oldest_seconds 7.0" in client.get("/metrics").text
        deliver(bench)
    text = client.get("/metrics").text
    assert 'vidmill_webhook_attempts_total{outcome="delivered"} 1.0' in text
    assert "vidmill_webhook_oldest_seconds 0.0" in text


def test_task_of_a_key_without_webhooks_leaves_the_outbox_empty(bench: Bench) -> None:
    finish(bench)
    assert outbox(bench.app.db, default_of(bench.app.db)) == []


def test_test_that_is_redelivered_is_still_a_test(bench: Bench) -> None:
    with receiving(answering(204)) as receiver:
        made = create(bench.client, receiver.url)
        told = bench.client.post(f"{HOOKS}/{made['id']}/test").json()
        bench.client.post(f"{HOOKS}/{made['id']}/deliveries/{told['id']}/redeliver")
        deliver(bench)
        first, again = bodies(receiver)
    assert first == again
