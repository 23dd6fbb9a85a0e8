"""The SDK against the real API: estimates, events, webhooks, keys, quota, the way to a link."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import pytest

from tests.desks import KEY, Bench
from tests.hooks import deliver as deliver_webhooks
from tests.hooks import make_hook_bench
from tests.receivers import answering, receiving
from tests.servers import Server, claim_when_queued, deliver, fail, working
from vidmill.client import (
    AsyncVidmill,
    ClipRequest,
    InvalidRequest,
    ModelNotServed,
    NotFound,
    TaskEvent,
    Unauthorized,
    VideoGenerator,
    Vidmill,
    verify_webhook,
)

pytestmark = pytest.mark.sqlite
"""What is tried here is a client; `tests/service/store` and others try both databases."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = make_hook_bench(tmp_path)
    yield made
    made.close()


class Lossy(BaseHTTPRequestHandler):
    """Passes requests on to a server, and loses the first answer."""

    upstream: ClassVar[str]
    num_passed: ClassVar[int]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kept = ("Authorization", "Content-Type", "Idempotency-Key")
        headers = {name: self.headers[name] for name in kept}
        answer = httpx2.post(self.upstream + self.path, content=body, headers=headers)
        type(self).num_passed += 1
        if self.num_passed == 1:
            self.close_connection = True
            return
        self.send_response(answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base's name
        pass


@pytest.fixture
def lossy_url(server: Server) -> Iterator[str]:
    Lossy.upstream, Lossy.num_passed = server.url, 0
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Lossy)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{proxy.server_port}"
    proxy.shutdown()
    thread.join()
    proxy.server_close()


def test_a_submit_whose_answer_was_lost_makes_one_task(lossy_url: str, vidmill: Vidmill) -> None:
    with Vidmill(lossy_url, KEY) as client:
        task = client.submit(ClipRequest(prompt="a red ball", cache=False))
    assert Lossy.num_passed == 2
    assert [one.task_id for one in vidmill.tasks()] == [task.task_id]


def test_a_confirmation_whose_answer_was_lost_queues_once(lossy_url: str, vidmill: Vidmill) -> None:
    checked = vidmill.batches.create([{"prompt": "a red ball"}])
    with Vidmill(lossy_url, KEY) as client:
        assert client.batches.confirm(checked.batch_id).counts.queued == 1
    assert len(list(vidmill.tasks())) == 1


def test_an_estimate_queues_nothing(vidmill: Vidmill) -> None:
    estimate = vidmill.estimate(ClipRequest(prompt="a red ball", duration_s=3))
    assert estimate.price is not None
    assert (estimate.cache_hit, estimate.would_be_rejected) == (False, None)
    assert vidmill.submit(ClipRequest(prompt="a red ball", duration_s=3)).price
    assert len(list(vidmill.tasks())) == 1


def test_an_estimate_of_a_wrong_clip_says_what_is_wrong(vidmill: Vidmill) -> None:
    with pytest.raises(InvalidRequest) as caught:
        vidmill.estimate(ClipRequest(prompt="a", resolution="4k"))
    assert [wrong.field for wrong in caught.value.errors] == ["resolution"]


def test_a_clip_is_made_anew_with_changes(server: Server, vidmill: Vidmill) -> None:
    first = vidmill.submit(ClipRequest(prompt="a red ball", seed=7, aspect_ratio="9:16"))
    again = vidmill.regenerate(first.task_id, prompt="a blue ball", duration_s=4)
    task = vidmill.task(again.task_id)
    assert task.request is not None
    assert (task.parent_task_id, task.request["prompt"]) == (first.task_id, "a blue ball")
    assert (task.duration, task.aspect_ratio) == (4.0, "9:16")
    assert task.seed != 7


def test_a_finished_clip_is_explained(server: Server, vidmill: Vidmill) -> None:
    with working(server.bench, deliver):
        video = vidmill.generate("a red ball", seed=7)
    found = vidmill.explain(video.task_id)
    assert (found.prompt.asked, found.seed, found.seed_was_asked_for) == ("a red ball", 7, True)
    assert found.files_made_by == video.task_id


def test_events_tell_the_whole_way(server: Server, vidmill: Vidmill) -> None:
    task = vidmill.submit("a red ball")
    events: list[TaskEvent] = []
    for event in vidmill.events(task):
        events.append(event)
        if len(events) == 1:
            deliver(server.bench, claim_when_queued(server.bench))
    assert events[0].task.status == "queued"
    assert (events[-1].type, events[-1].task.status) == ("t2v.task.completed", "completed")
    assert list(vidmill.events(task.task_id, after=events[-1].id)) == []
    assert [event.id for event in vidmill.events(task)] == [events[-1].id]


def test_events_go_on_after_a_restart_of_the_server(server: Server, vidmill: Vidmill) -> None:
    task = vidmill.submit("a red ball")
    heard: list[str] = []
    first = threading.Event()

    def listen() -> None:
        for event in vidmill.events(task):
            heard.append(event.type)
            first.set()

    listener = threading.Thread(target=listen)
    listener.start()
    assert first.wait(20)
    server.stop()
    fail(server.bench, claim_when_queued(server.bench))
    server.start()
    listener.join(30)
    assert heard == ["t2v.task.queued", "t2v.task.failed"]


def test_events_of_no_task_are_an_error(vidmill: Vidmill) -> None:
    with pytest.raises(NotFound):
        list(vidmill.events("t2v_" + "0" * 32))


def test_async_events_and_tasks_are_told_too(server: Server) -> None:
    async def use() -> list[str]:
        async with AsyncVidmill(server.url, KEY) as vidmill:
            task = await vidmill.submit("a red ball")
            return [event.type async for event in vidmill.events(task)]

    with working(server.bench, deliver):
        assert asyncio.run(use())[-1] == "t2v.task.completed"


def test_webhooks_are_registered_received_verified_and_told_again(
    server: Server, vidmill: Vidmill
) -> None:
    with receiving(answering(200)) as receiver:
        endpoint = vidmill.webhooks.create(receiver.url, events=["t2v.task.completed"])
        assert endpoint.secret is not None
        with working(server.bench, deliver):
            video = vidmill.generate("a red ball")
        deliver_webhooks(server.bench)
        (call,) = receiver.calls
        event = verify_webhook(call.headers, call.body, endpoint.secret, tolerance_s=1e12)
        assert event.task is not None
        assert (event.type, event.task.task_id) == ("t2v.task.completed", video.task_id)

        (delivery,) = vidmill.webhooks.deliveries(endpoint.id)
        assert (delivery.id, delivery.state) == (event.webhook_id, "delivered")
        assert vidmill.webhooks.redeliver(endpoint.id, delivery.id).state == "pending"
        deliver_webhooks(server.bench)
        assert [one.headers["webhook-id"] for one in receiver.calls] == [delivery.id] * 2
        tested = vidmill.webhooks.test(endpoint.id)
        assert (tested.type, tested.state) == ("webhook.test", "delivered")

        rotated = vidmill.webhooks.rotate_secret(endpoint.id)
        assert rotated.secret not in {None, endpoint.secret}
        since = datetime.fromtimestamp(server.bench.clock() - 3600, UTC)
        assert vidmill.webhooks.replay(endpoint.id, since=since).replayed == 1
    changed = vidmill.webhooks.update(endpoint.id, enabled=False, description="mine")
    assert (changed.enabled, changed.description) == (False, "mine")
    assert endpoint.id in [one.id for one in vidmill.webhooks.list()]
    assert vidmill.webhooks.get("default").secret
    vidmill.webhooks.delete(endpoint.id)
    with pytest.raises(NotFound):
        vidmill.webhooks.get(endpoint.id)


def test_a_webhook_within_the_walls_is_refused_with_the_field(vidmill: Vidmill) -> None:
    with pytest.raises(InvalidRequest) as caught:
        vidmill.webhooks.create("https://10.0.0.1/hook")
    assert [wrong.field for wrong in caught.value.errors] == ["url"]


def test_a_key_may_do_what_its_scopes_say_until_it_is_revoked(
    server: Server, vidmill: Vidmill
) -> None:
    new = vidmill.keys.create("reader", scopes=["read"], expires_in_days=1)
    assert new.api_key.startswith(new.hint)
    with Vidmill(server.url, new.api_key) as reader:
        assert list(reader.tasks()) == []
        with pytest.raises(Unauthorized):
            reader.submit("a red ball")
    assert new.id in [key.id for key in vidmill.keys.list()]
    vidmill.keys.revoke(new.id)
    with pytest.raises(NotFound):
        vidmill.keys.revoke(new.id)


def test_quota_names_the_plan_and_its_limits(vidmill: Vidmill) -> None:
    quota = vidmill.quota()
    assert (quota.tenant, quota.plan) == ("default", "default")
    assert "queued" in [limit.name for limit in quota.limits]


def test_text_becomes_a_link(server: Server) -> None:
    generator = VideoGenerator(model="tiny", api_key=KEY, url=server.url)
    with working(server.bench, deliver):
        link = generator.generate(text="a red ball", config={"duration": 3, "seed": 7})
    generator.close()
    assert link.startswith("http://files.test/")


def test_another_model_is_refused_before_anything_is_queued(
    server: Server, vidmill: Vidmill
) -> None:
    generator = VideoGenerator(model="sora-9", api_key=KEY, url=server.url)
    with pytest.raises(ModelNotServed, match="'tiny', not 'sora-9'"):
        generator.generate("a red ball")
    generator.close()
    assert list(vidmill.tasks()) == []
