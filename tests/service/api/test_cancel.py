"""Cancelling: at once while waiting, by asking while running, never when it is over."""

from tests.desks import Bench, finish
from vidmill.domain.ports import CancelRequest
from vidmill.store import jobs


def cancel(bench: Bench, task_id: str) -> tuple[int, dict[str, object]]:
    answer = bench.client.post(f"/v1/t2v/tasks/{task_id}/cancel")
    return answer.status_code, answer.json()


def test_a_queued_task_is_cancelled_at_once(bench: Bench) -> None:
    status, doc = cancel(bench, bench.generate()["task_id"])

    assert (status, doc["status"]) == (200, "cancelled")


def test_cancelling_twice_is_no_error(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]

    assert [cancel(bench, task_id)[0] for _ in range(2)] == [200, 200]


def test_a_delayed_task_is_cancelled_at_once(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    later = bench.clock.now + 60
    bench.settle(bench.claim(), jobs.Delayed(not_before=later, code="worker_lost", message="x"))

    assert cancel(bench, task_id)[0] == 200


def test_the_worker_of_a_running_task_is_asked_to_stop(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    bench.claim()
    inbox = bench.app.bus.listen("w1")

    status, doc = cancel(bench, task_id)

    assert (status, doc["status"], doc["cancel_requested"]) == (202, "processing", True)
    assert inbox.take() == [CancelRequest(task_id, 1)]
    inbox.close()


def test_a_finished_task_cannot_be_cancelled(bench: Bench) -> None:
    status, doc = cancel(bench, finish(bench))

    assert (status, doc["code"]) == (409, "task_not_cancellable")


def test_a_task_that_is_not_there_cannot_be_cancelled(bench: Bench) -> None:
    assert cancel(bench, "t2v_" + "0" * 32)[0] == 404
    assert cancel(bench, "nonsense")[0] == 404
