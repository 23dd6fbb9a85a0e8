"""What the bars say."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from vidmill.cli.progress import LABEL_CELLS, Bars, StoryboardBar, clipped, describe
from vidmill.client import Eta, Storyboard, Task


def make_task(status: str = "processing", **more: object) -> Task:
    return Task.model_validate({"task_id": "t2v_1", "status": status, **more})


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (make_task("queued"), "queued"),
        (make_task("queued", queue_position=3), "queued, 3 ahead"),
        (make_task(phase="denoising", progress=0.42, steps=12), "denoising 6/12"),
        (make_task(phase="denoising", progress=0.02, steps=12), "denoising 0/12"),
        (make_task(phase="denoising", progress=0.82, steps=12), "denoising 12/12"),
        (make_task(phase="finishing", attempt=2), "encoding, run 2"),
        (make_task(phase="dreaming"), "dreaming"),
        (make_task(phase="storing", eta=Eta(p50=7.4, p90=9)), "storing, about 7 s left"),
        (make_task(phase="storing", eta=Eta(p50=0.2, p90=1)), "storing"),
        (make_task(phase="denoising", steps=12, cancel_requested=True), "stopping"),
        (make_task("completed"), "completed"),
    ],
)
def test_state_in_a_few_words(task: Task, expected: str) -> None:
    assert describe(task) == expected


@pytest.mark.parametrize("text", ["", "short", "x" * 99, "緑の三角形" * 9, "a緑" * 20])
def test_labels_are_equally_wide_in_every_script(text: str) -> None:
    assert cell_len(clipped(text)) == LABEL_CELLS


def test_log_without_a_terminal_has_a_line_per_phase() -> None:
    file = io.StringIO()
    with Bars(Console(file=file, width=80), ["a [red] ball"]) as bars:
        for step in range(5):
            bars.show(0, make_task(phase="denoising", progress=step / 10))
        bars.show(0, make_task("completed", phase="done", progress=1.0))
        bars.end(0, "saved x.mp4", progress=1.0)
    assert file.getvalue().splitlines() == [
        "a [red] ball: processing, denoising",
        "a [red] ball: completed, done",
        "a [red] ball: saved x.mp4",
    ]


def test_many_clips_show_those_being_made_and_a_total() -> None:
    file = io.StringIO()
    console = Console(file=file, width=120, height=60, force_terminal=True, color_system=None)
    with Bars(console, [f"clip number {n}" for n in range(40)]) as bars:
        bars.end(0, "saved", progress=1.0)
        bars.show(7, make_task(phase="denoising", progress=0.5))
        bars.show(8, make_task("queued"))
    last = file.getvalue().rpartition("40 clips")[2]
    assert "clip number 7 " in last
    assert "clip number 8 " not in last
    assert " 2%" in last.splitlines()[0]


def make_board(state: str, *statuses: str, **more: object) -> Storyboard:
    shots = [
        {"number": n, "task_id": f"t2v_{n}", "status": status}
        for n, status in enumerate(statuses, 1)
    ]
    return Storyboard.model_validate(
        {"storyboard_id": "sb_" + "1" * 32, "state": state, "shots": shots, **more}
    )


def test_a_storyboards_bar_fits_80_columns_and_says_what_is_left() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, color_system=None)
    eta = {"p10": 60, "p50": 1100.4, "p90": 9000}
    with StoryboardBar(console) as bar:
        bar.show(make_board("rendering", *["queued"] * 20, progress=0.07, eta_finish=eta))
    last = [line for line in file.getvalue().splitlines() if "rendering" in line][-1]
    assert "7% rendering, 0 of 20 shots, 1100 s left" in last
    assert "0:00:00" in last


def test_a_storyboards_log_has_a_line_per_shot_that_ended() -> None:
    file = io.StringIO()
    with StoryboardBar(Console(file=file, width=80)) as bar:
        for progress in (0.1, 0.2):
            bar.show(make_board("rendering", "queued", "queued", progress=progress))
        bar.show(make_board("rendering", "completed", "queued", progress=0.5))
    assert [line.split(": ")[1] for line in file.getvalue().splitlines()] == [
        "rendering, 0 of 2 shots",
        "rendering, 1 of 2 shots",
    ]
