"""The log of an endpoint, and telling it again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import START
from tests.desks import Bench, finish
from tests.hooks import HOOKS, bodies, create, deliver, make_hook_bench, problem
from tests.outboxes import record
from tests.receivers import answering, answering_in_turn, receiving
from vidmill.api.dialects import native_webhook_models as models
from vidmill.api.dialects.native_views import instant
from vidmill.domain.webhook import EventType
from vidmill.services.webhooks import REPLAYED_AT_ONCE
from vidmill.store import deliveries, webhooks

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = make_hook_bench(tmp_path)
    yield made
    made.close()


def test_log_tells_every_attempt(bench: Bench) -> None:
    with receiving(answering_in_turn(500, 204)) as receiver:
        made = create(bench.client, receiver.url)
        record(bench.app.db, "bat_1")
        deliver(bench)
        bench.clock.advance(6)
        deliver(bench)
    [delivery] = bench.client.get(f"{HOOKS}/{made['id']}/deliveries").json()["data"]
    assert (delivery["state"], delivery["attempts"]) == ("delivered", 2)
    assert [entry["status"] for entry in delivery["log"]] == [500, 204]
    one = bench.client.get(f"{HOOKS}/{made['id']}/deliveries/{delivery['id']}").json()
    assert one == delivery


def test_failing_endpoint_says_since_when_and_until_when_it_rests(bench: Bench) -> None:
    with receiving(answering(503, "Retry-After: 90")) as receiver:
        made = create(bench.client, receiver.url)
        record(bench.app.db, "bat_1")
        deliver(bench)
    shown = bench.client.get(f"{HOOKS}/{made['id']}").json()
    assert shown["failing_since"] is not None
    assert shown["rests_until"] is not None
    on = bench.client.patch(f"{HOOKS}/{made['id']}", json={"enabled": True}).json()
    assert (on["failing_since"], on["rests_until"]) == (None, None)


def test_pages_of_the_log_follow_each_other(bench: Bench) -> None:
    made = create(bench.client)
    for number in range(5):
        record(bench.app.db, f"bat_{number}")
    path, seen, query = f"{HOOKS}/{made['id']}/deliveries", [], "?limit=2&state=pending"
    while query:
        page = bench.client.get(path + query).json()
        seen += [delivery["subject"] for delivery in page["data"]]
        cursor = page["next_cursor"]
        query = f"?limit=2&state=pending&cursor={cursor}" if cursor else ""
    assert seen == ["bat_4", "bat_3", "bat_2", "bat_1", "bat_0"]


def test_cursor_of_one_endpoint_opens_no_other(bench: Bench) -> None:
    one, two = create(bench.client)["id"], create(bench.client)["id"]
    for number in range(3):
        record(bench.app.db, f"bat_{number}")
    cursor = bench.client.get(f"{HOOKS}/{one}/deliveries?limit=1").json()["next_cursor"]
    answer = bench.client.get(f"{HOOKS}/{two}/deliveries?limit=1&cursor={cursor}")
    assert problem(answer)[:2] == (400, "invalid_cursor")


@pytest.mark.parametrize("query", ["state=lost", "limit=0", "limit=101", "colour=red"])
def test_wrong_question_to_the_log_is_refused(bench: Bench, query: str) -> None:
    answer = bench.client.get(f"{HOOKS}/default/deliveries?{query}")
    assert problem(answer)[:2] == (422, "invalid_request")


def test_redelivery_goes_out_again_under_the_same_id(bench: Bench) -> None:
    with receiving(answering(204)) as receiver:
        made = create(bench.client, receiver.url)
        record(bench.app.db, "bat_1")
        deliver(bench)
        [delivery] = bench.client.get(f"{HOOKS}/{made['id']}/deliveries").json()["data"]
        again = bench.client.post(f"{HOOKS}/{made['id']}/deliveries/{delivery['id']}/redeliver")
        deliver(bench)
        ids = [call.headers["webhook-id"] for call in receiver.calls]
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    assert ids == [delivery["id"], delivery["id"]]


def test_delivery_of_another_endpoint_is_not_to_be_had_here(bench: Bench) -> None:
    one, two = create(bench.client)["id"], create(bench.client)["id"]
    record(bench.app.db, "bat_1")
    [delivery] = bench.client.get(f"{HOOKS}/{one}/deliveries").json()["data"]
    answer = bench.client.get(f"{HOOKS}/{two}/deliveries/{delivery['id']}")
    assert problem(answer)[:2] == (404, "delivery_not_found")


def test_replay_tells_what_was_missed_and_repeats_what_was_told(bench: Bench) -> None:
    missed = finish(bench)
    with receiving(answering(204)) as receiver:
        made = create(bench.client, receiver.url)
        known = finish(bench)
        deliver(bench)
        answer = bench.client.post(f"{HOOKS}/{made['id']}/replay", json={"since": str(START)})
        deliver(bench)
        told = sorted(body["data"]["task_id"] for body in bodies(receiver))
    assert answer.json() == {"replayed": 2, "continue_since": None}
    assert told == sorted([missed, known, known])


def test_long_replay_says_where_it_goes_on(bench: Bench) -> None:
    made, count = create(bench.client), REPLAYED_AT_ONCE + 2
    path, began = f"{HOOKS}/{made['id']}/replay", START - count
    events = [(EventType.BATCH_COMPLETED, f"bat_{n}", began + n) for n in range(count)]
    endpoint = bench.app.db.read(lambda conn: webhooks.find(conn, 1, made["id"]))
    assert endpoint is not None
    bench.app.db.write(lambda uow: deliveries.add(uow, endpoint, events))

    first = bench.client.post(path, json={"since": str(began)}).json()
    rest = bench.client.post(path, json={"since": first["continue_since"]}).json()

    last = began + REPLAYED_AT_ONCE - 1
    assert first == {"replayed": REPLAYED_AT_ONCE, "continue_since": instant(last)}
    assert rest == {"replayed": 3, "continue_since": None}


@pytest.mark.parametrize("since", ["soon", "1000", str(START + 60)])
def test_replay_of_no_time_the_log_knows_is_refused(bench: Bench, since: str) -> None:
    answer = bench.client.post(f"{HOOKS}/default/replay", json={"since": since})
    assert problem(answer) == (422, "invalid_request", ["#/since"])


@pytest.mark.parametrize("path", ["test", "replay", "redeliver"])
def test_endpoint_that_is_off_is_sent_nothing(bench: Bench, path: str) -> None:
    made = create(bench.client)
    record(bench.app.db, "bat_1")
    [delivery] = bench.client.get(f"{HOOKS}/{made['id']}/deliveries").json()["data"]
    bench.client.patch(f"{HOOKS}/{made['id']}", json={"enabled": False})
    where = f"deliveries/{delivery['id']}/redeliver" if path == "redeliver" else path
    answer = bench.client.post(f"{HOOKS}/{made['id']}/{where}", json={"since": str(START)})
    assert problem(answer)[:2] == (409, "webhook_disabled")


def test_answers_fit_the_schemas_that_the_reference_publishes(bench: Bench) -> None:
    with receiving(answering(503)) as receiver:
        made = bench.client.post(HOOKS, json={"url": receiver.url})
        path = f"{HOOKS}/{made.json()['id']}"
        record(bench.app.db, "bat_1")
        deliver(bench)
        tested = bench.client.post(f"{path}/test")
    log = bench.client.get(f"{path}/deliveries")
    again = bench.client.post(f"{path}/deliveries/{log.json()['data'][1]['id']}/redeliver")
    replayed = bench.client.post(f"{path}/replay", json={"since": str(START)})
    for model, answer in (
        (models.WebhookWithSecret, made),
        (models.WebhookWithSecret, bench.client.post(f"{path}/rotate-secret")),
        (models.OneWebhook, bench.client.get(path)),
        (models.OneWebhook, bench.client.get(f"{HOOKS}/default")),
        (models.Webhook, bench.client.patch(path, json={"description": "x"})),
        (models.WebhookList, bench.client.get(HOOKS)),
        (models.WebhookDelivery, tested),
        (models.WebhookDelivery, again),
        (models.DeliveryPage, log),
        (models.ReplayAnswer, replayed),
    ):
        model.model_validate_json(answer.content, strict=True)
