import time

import pytest

from vidmill.domain.errors import DiskFull, JobCancelled
from vidmill.domain.job import Phase
from vidmill.worker.channel import Channel, StopWord, pair
from vidmill.worker.child import Link, RunWatch


def make_link() -> tuple[Channel, Link]:
    ours, end = pair()
    return ours, Link(Channel(end), StopWord.create())


def test_watch_raises_for_the_run_that_was_stopped_and_no_other() -> None:
    _, link = make_link()
    stopped, other = RunWatch(link, 4), RunWatch(link, 5)
    link.stop.ask(4)
    other.check()
    with pytest.raises(JobCancelled):
        stopped.check()


def test_every_report_reaches_the_supervisor() -> None:
    ours, link = make_link()
    watch = RunWatch(link, 4)
    for step in range(1, 4):
        watch.report(Phase.DENOISING, step, 3)
    heard = [ours.receive()[0] for _ in range(3)]
    assert [message["done"] for message in heard] == [1, 2, 3]
    assert heard[0] == {
        "say": "progress",
        "run": 4,
        "phase": "denoising",
        "done": 1,
        "total": 3,
    }


def test_time_is_booked_on_the_phase_it_was_spent_in() -> None:
    _, link = make_link()
    watch = RunWatch(link, 4)
    time.sleep(0.03)
    watch.report(Phase.DENOISING, 1, 1)
    watch.report(Phase.DECODING, 0, 1)
    time.sleep(0.01)
    timings = watch.timings_s()
    assert set(timings) == {"denoising", "decoding"}
    assert timings["denoising"] >= 0.03
    assert timings["decoding"] >= 0.01


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DiskFull("no room"), "disk_full", "no room"),
        (ZeroDivisionError("x"), "internal_error", "ZeroDivisionError('x')"),
    ],
)
def test_failure_crosses_the_process_with_its_code(
    error: Exception, code: str, message: str
) -> None:
    ours, link = make_link()
    link.say_failure("failed", error, run=4)
    said, _ = ours.receive()
    assert said == {"say": "failed", "run": 4, "code": code, "message": message}


def test_child_whose_supervisor_hung_up_ends_itself() -> None:
    ours, link = make_link()
    ours.close()
    with pytest.raises(SystemExit):
        link.hear()
