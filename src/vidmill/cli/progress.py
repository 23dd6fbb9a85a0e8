"""Live progress on stderr: bars on a terminal, one line per change of phase elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from vidmill.client import Storyboard, Task
from vidmill.domain.job import PHASE_SPAN, Phase

LABEL_CELLS = 34
ALWAYS_SHOWN = 12
"""Up to so many rows all have a bar; beyond, only those being made."""

WORDS = {
    "waiting": "waiting",
    "starting": "starting",
    "encoding_text": "reading the prompt",
    "denoising": "denoising",
    "decoding": "decoding",
    "finishing": "encoding",
    "storing": "storing",
    "retry_wait": "waiting to retry",
    "review": "in review",
    "done": "done",
}


class Bars:
    """One bar per clip. Use as a context manager; `show` may be called at any rate."""

    def __init__(self, console: Console, labels: list[str], *, steps: int | None = None) -> None:
        self._console = console
        self._labels = labels
        self._steps = steps
        self._phases: dict[int, str] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=8,
        )
        self._ids: list[TaskID] = []
        self._is_many = len(labels) > ALWAYS_SHOWN
        self._all: TaskID | None = None

    def __enter__(self) -> Self:
        if self._is_many:
            total = len(self._labels)
            self._all = self._progress.add_task(
                clipped(f"{total} clips"), total=total, state="", visible=True
            )
        self._ids = [
            self._progress.add_task(
                clipped(label),
                total=1.0,
                start=False,
                state="not sent",
                visible=not self._is_many,
            )
            for label in self._labels
        ]
        self._progress.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, index: int, task: Task) -> None:
        """Move the bar of clip *index* to where *task* stands."""
        bar = self._ids[index]
        if task.status != "queued":
            self._progress.start_task(bar)
        is_visible = not self._is_many or task.status == "processing"
        state = describe(task, steps=self._steps)
        self._progress.update(bar, completed=task.progress, state=state, visible=is_visible)
        if task.is_finished:
            self._progress.stop_task(bar)
        self._say(index, task)

    def end(self, index: int, state: str, *, progress: float | None = None) -> None:
        """Write the last word about clip *index*."""
        bar = self._ids[index]
        self._progress.update(bar, state=state, completed=progress)
        self._progress.stop_task(bar)
        if self._all is not None:
            self._progress.update(bar, visible=False)
            self._progress.advance(self._all)
        if not self._console.is_terminal:
            self._console.print(f"{self._labels[index]}: {state}", markup=False, soft_wrap=True)

    def _say(self, index: int, task: Task) -> None:
        """Without a terminal, one line per phase is enough for a log."""
        phase = task.phase or task.status
        if not self._console.is_terminal and self._phases.get(index) != phase:
            self._phases[index] = phase
            line = f"{self._labels[index]}: {task.status}, {WORDS.get(phase, phase)}"
            self._console.print(line, markup=False, soft_wrap=True)


class StoryboardBar:
    """The bar of a storyboard; elsewhere than on a terminal a line for each end of a shot."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = ""
        self._progress = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task("", total=1.0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, board: Storyboard) -> None:
        done = sum(shot.status == "completed" for shot in board.shots)
        said = f"{board.state}, {done} of {len(board.shots)} shots"
        left_s = board.eta_finish.p50 if board.eta_finish else 0.0
        left = f", {left_s:.0f} s left" if left_s >= 1 else ""
        self._progress.update(self._bar, completed=board.progress, description=said + left)
        if not self._console.is_terminal and said != self._said:
            self._said = said
            line = f"{board.storyboard_id}: {said}"
            self._console.print(line, markup=False, soft_wrap=True)


def describe(task: Task, *, steps: int | None = None) -> str:
    """Return where *task* stands, in a few words; *steps* if the task itself does not say."""
    if task.status == "queued":
        place = "" if task.queue_position is None else f", {task.queue_position} ahead"
        return f"queued{place}{_eta(task)}"
    if task.status == "processing":
        if task.cancel_requested:
            return "stopping"
        phase = task.phase or "processing"
        retry = f", run {task.attempt}" if task.attempt > 1 else ""
        return f"{WORDS.get(phase, phase)}{_step(task, task.steps or steps)}{retry}{_eta(task)}"
    return task.status


def _eta(task: Task) -> str:
    return f", about {task.eta.p50:.0f} s left" if task.eta and task.eta.p50 >= 1 else ""


def _step(task: Task, steps: int | None) -> str:
    """Return the denoising step, worked back from the share of `progress` that denoising has."""
    if task.phase != Phase.DENOISING or not steps:
        return ""
    start, end = PHASE_SPAN[Phase.DENOISING]
    done = round((task.progress - start) / (end - start) * steps)
    return f" {max(0, min(done, steps))}/{steps}"


def clipped(text: str) -> str:
    """Return *text* in exactly `LABEL_CELLS` terminal cells (CJK characters take two)."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= LABEL_CELLS:
        return set_cell_size(text, LABEL_CELLS)
    return set_cell_size(text, LABEL_CELLS - 1) + "…"
