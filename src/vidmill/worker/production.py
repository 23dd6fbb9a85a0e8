"""From a claimed job to an outcome: the render child, the finish child, and the runs in them."""

import math
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from vidmill.domain.clip import ClipResult
from vidmill.domain.errors import (
    WORK_ERRORS,
    InternalError,
    JobCancelled,
    RenderCrashed,
    TimedOut,
    VidmillError,
    WorkerLost,
)
from vidmill.domain.job import Job, Phase
from vidmill.domain.ports import EventBus
from vidmill.store.claim import LORAS_HELD
from vidmill.store.workers import WorkerState
from vidmill.telemetry import get_logger
from vidmill.worker.children import Child, Handlers, Message
from vidmill.worker.loop import EventLoop
from vidmill.worker.records import Outcome
from vidmill.worker.runs import FINISH_TRIES, Clip, Run, Runs, Stage

log = get_logger(__name__)

SOFT_STOP_S = 30.0
SOFT_STOP_SHARE = 0.02
"""A run is asked to stop this long before the hard limit, whichever is less."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """See the settings of the same names."""

    load_limit_s: float
    time_limit_s: float
    cancel_grace_s: float
    progress_interval_s: float
    finish_backlog: int


@dataclass(frozen=True, kw_only=True)
class Reports:
    """What production tells its supervisor.

    Attributes:
        over: A run ended so; its children are done with it.
        room: Another job may be claimed.
        changed: `Production.status` or the pids did.
        broken: The engine could not be loaded, for the reason with this code.
    """

    over: Callable[[Run, Outcome], None]
    room: Callable[[], None]
    changed: Callable[[], None]
    broken: Callable[[str], None] = lambda _code: None


class Production:
    """One clip is rendered while up to `finish_backlog` others are finished.

    Args:
        render_order, finish_order: First messages to the children; see their modules.
    """

    def __init__(
        self,
        loop: EventLoop,
        bus: EventBus,
        *,
        rules: Rules,
        reports: Reports,
        render_order: Message,
        finish_order: Message,
    ) -> None:
        self._loop = loop
        self._bus = bus
        self._rules = rules
        self._reports = reports
        self.runs = Runs()
        self.children_pids: set[int] = set()
        self._model_news = "loading the model"
        self._finish_news = "starting the finish process"
        self._broken = ""
        self._identity: dict[str, str] = {}
        self._loras: deque[str] = deque(maxlen=LORAS_HELD)
        self._render = self._child(
            "render_child", render_order, self._render_exit, self._render_late
        )
        self._finish = self._child("finish_child", finish_order, self._finish_exit, reports.changed)

    def start(self) -> None:
        """Start both children. Call it from a thread that lives as long as the process."""
        self._render.start()
        self._finish.start()

    @property
    def status(self) -> tuple[WorkerState, str]:
        """Return how the children are, with words for a person."""
        if self._broken:
            return WorkerState.BROKEN, self._broken
        if not self._render.is_ready:
            return WorkerState.LOADING, self._model_news
        if not self._finish.is_ready:
            return WorkerState.LOADING, self._finish_news
        return WorkerState.READY, ""

    @property
    def loras(self) -> tuple[str, ...]:
        """Keys of the LoRAs that the render process drew with last, the newest in front."""
        return tuple(self._loras)

    @property
    def has_room(self) -> bool:
        """Whether a job begun now would be rendered at once."""
        return (
            self._render.is_ready
            and self.runs.at(Stage.RENDERING) is None
            and self.runs.backlog < self._rules.finish_backlog
        )

    def begin(self, job: Job) -> None:
        """Have *job* rendered, finished and stored; `Reports.over` follows."""
        run, limit_s = self.runs.begin(job), self._rules.time_limit_s
        soft_s = limit_s - min(SOFT_STOP_S, SOFT_STOP_SHARE * limit_s)
        run.timers += [
            self._loop.after(soft_s, lambda: self._stop(run, self._time_is_up())),
            self._loop.after(limit_s, lambda: self._kill(run)),
        ]
        log.info("job_claimed", job_id=job.public_id, attempt=job.attempt)
        if self._render.send({"run": run.number, "prefix": run.prefix, "spec": job.spec.to_json()}):
            self._tell(run)
        else:
            self._end(run, None)  # it never began: back to the queue, uncounted

    def cancel(self, public_id: str, attempt: int) -> None:
        """Have that run stopped, if it is here."""
        run = self.runs.find(public_id, attempt)
        if run:
            self._stop(run, JobCancelled("cancelled by its owner"))

    def lose(self, run: Run, *, grace_s: float = math.inf) -> None:
        """Have *run* stopped; the job is somebody else's now, so nothing may be written.

        The child has *grace_s* to stop, if that is less than a cancelled one has.
        """
        run.is_lost = True
        self._stop(run, WorkerLost("the lease ran out"), grace_s=grace_s)

    def reload(self) -> None:
        """Have the model loaded and warmed anew, by a new process; nothing may be rendering."""
        self._model_news = "loading the model again: its last clips failed"
        self._render.kill()

    def close(self) -> None:
        """End both children, with all they started."""
        self._render.close()
        self._finish.close()

    def _child(
        self,
        name: str,
        order: Message,
        on_exit: Callable[[int], None],
        on_late: Callable[[], None],
    ) -> Child:
        return Child(
            self._loop,
            module=f"vidmill.worker.{name}",
            order=order,
            ready_limit_s=self._rules.load_limit_s,
            known=self.children_pids,
            handlers=Handlers(
                start=self._reports.changed,
                late=on_late,
                message=lambda message, fd: self._hear(name, message, fd),
                exit=on_exit,
            ),
        )

    # What the children say.

    def _hear(self, child: str, message: Message, fd: int | None) -> None:
        hear = {
            ("render_child", "warming"): self._warming,
            ("render_child", "ready"): self._render_ready,
            ("render_child", "broken"): self._render_broken,
            ("render_child", "frames"): self._frames,
            ("finish_child", "ready"): self._finish_ready,
            ("finish_child", "stored"): self._stored,
        }.get((child, message["say"]))
        if hear:
            hear(message, fd)
            return
        run = self.runs.get(message["run"])
        if run is None:  # it was ended meanwhile
            return
        if message["say"] == "progress":
            run.advance(Phase(message["phase"]), message["done"], message["total"])
            self._tell(run)
        else:
            self._failed(run, message)

    def _warming(self, message: Message, _fd: int | None) -> None:
        self._model_news = f"warming {message['done']} of {message['total'] or '?'}"
        self._reports.changed()

    def _render_ready(self, message: Message, _fd: int | None) -> None:
        self._identity, self._broken = message["identity"], ""
        self._ready()

    def _render_broken(self, message: Message, _fd: int | None) -> None:
        self._broken = f"{message['code']}: {message['message']}"
        log.error("model_broken", reason=self._broken)
        self._reports.changed()
        self._reports.broken(message["code"])

    def _render_late(self) -> None:
        self._broken = (
            f"{TimedOut.code}: the model was not ready after {self._rules.load_limit_s:g} s and is"
            " loaded again; if it is only slow, raise VIDMILL_LOAD_LIMIT_S"
        )
        self._reports.changed()

    def _finish_ready(self, _message: Message, _fd: int | None) -> None:
        self._feed_finisher()
        self._ready()

    def _ready(self) -> None:
        self._reports.changed()
        self._reports.room()

    def _frames(self, message: Message, fd: int | None) -> None:
        run = self.runs.get(message["run"])
        assert fd is not None
        if run is None:
            os.close(fd)
            return
        run.clip = Clip(
            fd=fd, shape=message["shape"], timings_s=message["timings"], identity=self._identity
        )
        run.stage = Stage.WAITING
        self._note_lora(run.job)
        log.info(
            "job_rendered",
            job_id=run.job.public_id,
            attempt=run.job.attempt,
            waited_s=message["waited_s"],
            **message["timings"],
        )
        if run.verdict:
            self._end(run, run.verdict)
        self._feed_finisher()
        self._reports.room()

    def _note_lora(self, job: Job) -> None:
        if job.spec.lora is None:
            return
        if job.spec.lora.key in self._loras:
            self._loras.remove(job.spec.lora.key)
        self._loras.appendleft(job.spec.lora.key)

    def _feed_finisher(self) -> None:
        run = self.runs.at(Stage.WAITING)
        if run is None or not self._finish.is_ready or self.runs.at(Stage.FINISHING):
            return
        assert run.clip is not None
        run.stage = Stage.FINISHING
        run.finish_tries += 1
        order = {
            "run": run.number,
            "prefix": run.prefix,
            "spec": run.job.spec.to_json(),
            "shape": run.clip.shape,
            "timings": run.clip.timings_s,
            "identity": run.clip.identity,
        }
        self._finish.send(order, fd=run.clip.fd)

    def _stored(self, message: Message, _fd: int | None) -> None:
        run = self.runs.get(message["run"])
        if run:
            self._end(run, ClipResult.from_json(message["result"]))
        self._feed_finisher()
        self._reports.room()

    def _failed(self, run: Run, message: Message) -> None:
        error = WORK_ERRORS.get(message["code"], InternalError)(message["message"])
        if message.get("is_resting"):
            self._model_news = "the server still draws a clip that was given up"
        if message.get("is_last") or message.get("is_resting"):
            self._reports.changed()  # before the job, as in `_render_exit`
        self._end(run, run.verdict or error)
        self._feed_finisher()
        self._reports.room()

    # How runs end.

    def _stop(self, run: Run, verdict: VidmillError, *, grace_s: float = math.inf) -> None:
        """Ask for an end; a child that does not answer within the grace is killed."""
        if run.verdict:
            return
        run.verdict = verdict
        if run.stage is Stage.WAITING:
            self._end(run, verdict)
            self._reports.room()
            return
        self._child_of(run).ask_stop(run.number)
        grace_s = max(0.0, min(grace_s, self._rules.cancel_grace_s))
        run.timers.append(self._loop.after(grace_s, lambda: self._kill(run)))

    def _kill(self, run: Run) -> None:
        log.warning("run_killed", job_id=run.job.public_id, attempt=run.job.attempt)
        run.verdict = run.verdict or self._time_is_up()
        if run.stage is Stage.WAITING:
            self._end(run, run.verdict)
        else:
            self._child_of(run).kill()

    def _child_of(self, run: Run) -> Child:
        return self._render if run.stage is Stage.RENDERING else self._finish

    def _time_is_up(self) -> TimedOut:
        return TimedOut(
            f"the run took longer than {self._rules.time_limit_s:g} s and was stopped; ask for a"
            " shorter or smaller clip, or raise VIDMILL_TIME_LIMIT_S"
        )

    def _render_exit(self, status: int) -> None:
        self._loras.clear()
        self._model_news = f"loading the model again: the render process ended ({status})"
        self._reports.changed()  # before the job: whoever sees it failed must not see us ready
        run = self.runs.at(Stage.RENDERING)
        if run:
            lost = RenderCrashed(f"the render process died in the middle ({status})")
            self._end(run, run.verdict or lost)

    def _finish_exit(self, status: int) -> None:
        self._finish_news = f"starting the finish process again: it ended ({status})"
        self._reports.changed()
        run = self.runs.at(Stage.FINISHING)
        if run and run.verdict is None and run.finish_tries < FINISH_TRIES:
            run.stage = Stage.WAITING
        elif run:
            lost = WorkerLost(f"the finish process died in the middle ({status})")
            self._end(run, run.verdict or lost)

    def _end(self, run: Run, outcome: Outcome) -> None:
        self.runs.end(run)
        self._reports.over(run, outcome)

    def _tell(self, run: Run) -> None:
        """Publish where *run* stands: a new phase now, a step when the interval is over."""
        run.is_news_due = run.news is not None and run.phase is run.told
        if run.is_news_due:
            return
        run.told = run.phase
        self._bus.publish(run.job.public_id, run.event())
        if run.news is None:
            run.news = self._loop.after(
                self._rules.progress_interval_s, lambda: self._tell_again(run)
            )

    def _tell_again(self, run: Run) -> None:
        run.news = None
        if run.is_news_due:
            self._tell(run)
