"""The supervisor: claims jobs, keeps their leases, and answers for every one of them.

One synchronous loop over the children's channels, the ticket and cancel inboxes and timers. It
touches no pixels, so nothing it waits for lasts longer than a database write.
"""

import math
import os
import random
import socket
from collections.abc import Callable
from typing import Any

from vidmill.domain.clip import ClipResult
from vidmill.domain.errors import EngineFailed, EngineOutOfMemory, JobCancelled, VidmillError
from vidmill.domain.job import JobState
from vidmill.services.lifecycle import ENGINE_TROUBLE
from vidmill.settings import Settings
from vidmill.store.workers import WorkerState
from vidmill.telemetry import get_logger
from vidmill.wiring import App, engine_order
from vidmill.worker.loop import EventLoop
from vidmill.worker.proc import PidFile, become_subreaper
from vidmill.worker.production import Production, Reports, Rules
from vidmill.worker.records import Assignment, Outcome, Records
from vidmill.worker.runs import Run

log = get_logger(__name__)

RESETTLE_S = 1.0
"""Wait before writing an outcome again that the database would not take."""

LEASE_USED = 0.75
"""Share of a lease without a heartbeat after which its runs are given up. The rest is for a call
that hangs, and for the child that will not stop."""

DEVICE_TROUBLE = frozenset({EngineFailed.code, EngineOutOfMemory.code})
"""Codes of a model that cannot be loaded though its files are sound."""

EXIT_UNFIT = 70
"""Exit status of a worker that took itself out (EX_SOFTWARE of sysexits.h)."""

MakeProduction = Callable[..., Production]


class Supervisor:
    """One per GPU. Everything happens in the thread that calls `run`.

    *make_production* makes what renders; see `Production`, whose arguments it gets.
    """

    def __init__(
        self,
        app: App,
        assignment: Assignment,
        *,
        loop: EventLoop | None = None,
        make_production: MakeProduction = Production,
    ) -> None:
        settings = app.settings
        self._app = app
        self._settings = settings
        self._post = assignment
        self._loop = loop or EventLoop()
        self._unsettled: list[tuple[Run, Outcome]] = []
        self._reported: tuple[WorkerState, str] | None = None
        self._is_draining = False
        self._is_over = False
        self._exit_status = 0
        self._failed_jobs: set[int] = set()
        self._load_failures = 0
        self._is_suspect = False
        self._last_beat = self._loop.now()
        self._tickets = app.tickets.listen(assignment.pools, assignment.worker)
        self._cancels = app.bus.listen(assignment.worker)
        self._pids = PidFile(settings.run_dir / f"{assignment.worker}.pids")
        self._records = Records(app, assignment, host=socket.gethostname(), pid=os.getpid())
        self._production = make_production(
            self._loop,
            app.bus,
            rules=Rules(
                load_limit_s=settings.load_limit_s,
                time_limit_s=settings.time_limit_s,
                cancel_grace_s=settings.cancel_grace_s,
                progress_interval_s=settings.progress_interval_s,
                finish_backlog=settings.finish_backlog,
            ),
            reports=Reports(
                over=self._settle,
                room=self._claim,
                changed=self._report,
                broken=self._on_broken_model,
            ),
            render_order=render_order(app, assignment),
            finish_order=finish_order(settings, assignment),
        )

    def run(self) -> int:
        """Serve until `drain` has let the last run end; return the process's exit status.

        Call it from the main thread.
        """
        become_subreaper()
        self._loop.watch(self._tickets.fileno(), self._on_ticket)
        self._loop.watch(self._cancels.fileno(), self._on_cancel)
        self._loop.every(lambda: self._settings.heartbeat_s, self._beat)
        self._loop.every(lambda: self._settings.poll_s * random.uniform(0.75, 1.25), self._claim)
        try:
            self._production.start()
            while not self._is_over:
                self._loop.run_once()
        finally:
            self._close()
        return self._exit_status

    def drain(self) -> None:
        """Claim no more and end with the last run. The second call hands the runs back at once."""
        if self._is_draining:
            self._is_over = True
            return
        log.info("worker_draining", runs=len(self._production.runs))
        self._is_draining = True
        self._tickets.pause()
        self._loop.after(self._settings.drain_s, self._give_up_draining)
        self._report()
        self._end_when_drained()

    def _give_up_draining(self) -> None:
        self._is_over = True

    def _end_when_drained(self) -> None:
        if self._is_draining and not self._production.runs and not self._unsettled:
            self._is_over = True

    def _close(self) -> None:
        """End the children; what still runs goes back to the queue, uncounted."""
        self._production.close()
        for run in self._production.runs:
            self._production.runs.end(run)
            self._settle(run, run.verdict)
        try:
            self._records.sign_off()
        except VidmillError as error:  # the lease will tell
            log.warning("sign_off_failed", error=str(error))
        self._pids.remove()
        self._tickets.close()
        self._cancels.close()
        self._loop.close()

    # Claims and leases.

    def _on_ticket(self) -> None:
        self._tickets.take()
        self._claim()

    def _on_cancel(self) -> None:
        for request in self._cancels.take():
            self._production.cancel(request.job_id, request.attempt)

    def _claim(self) -> None:
        """Take a job if there is room for one; while there is none, others have the tickets."""
        if self._is_draining or not self._production.has_room:
            self._tickets.pause()
            return
        try:
            job = self._records.claim(self._production.loras)
        except VidmillError as error:
            log.warning("claim_failed", error=str(error))
            return
        if job:
            self._production.begin(job)
        self._heed_tickets()

    def _heed_tickets(self) -> None:
        if self._production.has_room:
            self._tickets.resume()
        else:
            self._tickets.pause()

    def _beat(self) -> None:
        """Renew the leases and learn what was cancelled, and what is not ours any more."""
        runs = [run for run in self._production.runs if not run.is_lost]
        began = self._loop.now()
        try:
            unsettled = [run for run, _ in self._unsettled]
            owned = self._records.beat([*runs, *unsettled], *self._status)
        except VidmillError as error:
            log.warning("heartbeat_failed", error=str(error))
            if self._loop.now() - self._last_beat > LEASE_USED * self._settings.lease_s:
                self._lose(
                    runs, grace_s=self._last_beat + self._settings.lease_s - self._loop.now()
                )
            return
        self._last_beat = began
        cancelled = {(o.job_id, o.attempt): o.is_cancel_requested for o in owned}
        self._lose([run for run in runs if run.key not in cancelled])
        for run in runs:
            if cancelled.get(run.key):
                self._production.cancel(run.job.public_id, run.job.attempt)

    def _lose(self, runs: list[Run], *, grace_s: float = math.inf) -> None:
        for run in runs:
            log.warning("lease_lost", job_id=run.job.public_id, attempt=run.job.attempt)
            self._production.lose(run, grace_s=grace_s)

    @property
    def _status(self) -> tuple[WorkerState, str]:
        return (WorkerState.DRAINING, "") if self._is_draining else self._production.status

    def _report(self) -> None:
        self._note_pids()
        state, detail = self._status
        if (state, detail) == self._reported:
            return
        self._reported = (state, detail)
        log.info("worker_state", state=state, detail=detail)
        try:
            self._records.report(state, detail)
        except VidmillError as error:  # the next heartbeat says it again
            log.warning("report_failed", error=str(error))

    def _note_pids(self) -> None:
        try:
            self._pids.write([os.getpid(), *sorted(self._production.children_pids)])
        except OSError as error:  # only what outlives a kill -9 would be missed
            log.warning("pids_not_noted", error=str(error))

    # Outcomes.

    def _settle(self, run: Run, outcome: Outcome) -> None:
        """Write how *run* ended. A database that is away is asked again while the lease lasts."""
        if run.is_lost:
            self._delete(run.prefix)
            self._end_when_drained()
            return
        try:
            state = self._records.settle(run.job, outcome)
            is_stored = isinstance(outcome, ClipResult) and self._is_published(run, state)
        except VidmillError as error:
            log.warning("settle_failed", job_id=run.job.public_id, error=str(error))
            self._unsettled.append((run, outcome))
            self._loop.after(RESETTLE_S, lambda: self._settle_again(run, outcome))
            return
        _log_end(run, outcome, state)
        self._tidy(run, state, is_stored=is_stored)
        self._judge_engine(run, outcome)
        self._end_when_drained()

    def _judge_engine(self, run: Run, outcome: Outcome) -> None:
        """Count the different jobs our engine failed in a row; too many, and it is loaded anew."""
        if isinstance(outcome, ClipResult):
            self._failed_jobs, self._is_suspect, self._load_failures = set(), False, 0
        if not isinstance(outcome, ENGINE_TROUBLE):
            return
        self._failed_jobs.add(run.job.id)
        if self._is_suspect:
            self._take_out(f"it failed again after loading the model anew: {outcome}")
        elif len(self._failed_jobs) >= self._settings.worker_failures:
            log.error("engine_suspected", failures=len(self._failed_jobs))
            self._is_suspect = True
            self._production.reload()

    def _on_broken_model(self, code: str) -> None:
        """Count the loads that failed though the files are sound: the device is not."""
        self._load_failures += code in DEVICE_TROUBLE
        if self._load_failures >= self._settings.worker_failures:
            _, detail = self._production.status
            self._take_out(f"the model cannot be loaded here: {detail}")

    def _take_out(self, reason: str) -> None:
        log.critical("worker_unfit", reason=reason)
        self._is_over, self._exit_status = True, EXIT_UNFIT

    def _settle_again(self, run: Run, outcome: Outcome) -> None:
        self._unsettled.remove((run, outcome))
        self._settle(run, outcome)

    def _is_published(self, run: Run, state: JobState | None) -> bool:
        """Whether the row shows this run's files.

        A write that reported a failure may have been durable all the same; then the second try
        finds the job settled, and by this very run.
        """
        if state is None:
            job = self._records.find(run.job.id)
            return job is not None and job.result is not None and job.attempt == run.job.attempt
        return True

    def _tidy(self, run: Run, state: JobState | None, *, is_stored: bool) -> None:
        """Delete files nobody will ask for: those of this run, or of the runs before it.

        The pictures of a run that failed while it was drawn stay: its task shows them.
        """
        if is_stored:
            for attempt in range(1, run.job.attempt):
                self._delete(f"{run.job.public_id}/{attempt}")
        elif run.finish_tries or state in {None, JobState.CANCELLED}:
            self._delete(run.prefix)

    def _delete(self, prefix: str) -> None:
        try:
            self._app.blobs.delete_prefix(prefix)
        except (VidmillError, OSError) as error:
            log.warning("delete_failed", prefix=prefix, error=str(error))


def _log_end(run: Run, outcome: Outcome, state: JobState | None) -> None:
    """Say how *run* ended; of a failure the code alone, as its words may quote a prompt."""
    fields = {"job_id": run.job.public_id, "attempt": run.job.attempt, "state": state}
    if isinstance(outcome, VidmillError) and not isinstance(outcome, JobCancelled):
        log.warning("job_settled", **fields, code=outcome.code)
    else:
        log.info("job_settled", **fields)


def render_order(app: App, assignment: Assignment) -> dict[str, Any]:
    """Return the first message to a render child."""
    settings = app.settings
    return {
        **_log_order(settings),
        "engine": assignment.engine,
        "profile": settings.profile,
        **engine_order(settings, app.profile),
        "preview_frames": settings.preview_frames,
        "storage_url": settings.effective_storage_url,
        "scratch": str(settings.scratch_dir / assignment.worker),
        "loras": str(settings.lora_dir),
        "lora_cache_bytes": settings.lora_cache_bytes,
    }


def finish_order(settings: Settings, assignment: Assignment) -> dict[str, Any]:
    """Return the first message to a finish child."""
    encoding = {
        "preset": settings.encoder_preset,
        "crf": settings.encoder_crf,
        "interpolation": settings.interpolation,
    }
    return {
        **_log_order(settings),
        "storage_url": settings.effective_storage_url,
        "encoding": encoding,
        "scratch": str(settings.scratch_dir / assignment.worker),
    }


def _log_order(settings: Settings) -> dict[str, Any]:
    return {"log_level": settings.log_level, "log_format": settings.log_format}
