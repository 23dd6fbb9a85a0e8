"""A clip made elsewhere: order, wait, fetch, decode. What every remote engine has in common.

What differs, the wire, is a `Service`. Told is only what the server says: where it gives no
percentage, progress stands still until the clip is there.
"""

import random
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import BinaryIO, Protocol

from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import BadOutput, EngineFailed, JobCancelled, ModelInvalid, WorkError
from vidmill.domain.job import Phase
from vidmill.domain.ports import Allocate, Frames, LoraFiles, Show, Watch
from vidmill.domain.profile import ModelProfile
from vidmill.domain.remote import Cancel, Progress, Remote
from vidmill.engines.refusals import refuse_unsupported
from vidmill.engines.wire import NoAnswer
from vidmill.media.decode import decode_into
from vidmill.telemetry import get_logger

log = get_logger(__name__)

_HEED_S = 0.1
"""Longest sleep between two looks at the watch."""

_GROWTH = 1.5
"""Each wait between two polls is so many times the last."""


class State(Enum):
    QUEUED = auto()
    RUNNING = auto()
    DONE = auto()
    FAILED = auto()


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a clip stands with its server.

    Attributes:
        percent: How much of it is drawn, where the server says.
        error: Why it failed.
        url: Where the file is, where the server says.
    """

    state: State
    percent: int | None = None
    error: WorkError | None = None
    url: str = ""

    @property
    def is_over(self) -> bool:
        return self.state in {State.DONE, State.FAILED}


class Service(Protocol):
    """The wire of one kind of server. Every call may raise `NoAnswer` or `EngineFailed`.

    Attributes:
        host: Where it is, for logs.
        is_shared: It draws for many at once: a clip left running there is in nobody's way.
        is_billed: A clip left running there costs money.
    """

    host: str
    is_shared: bool
    is_billed: bool

    def greet(self) -> str:
        """See that it is there and takes the key; return the model's name, if it says."""
        ...

    def submit(self, spec: ClipSpec) -> str:
        """Order a clip and return what the server calls it.

        Raises:
            SpecUnsupported: It refuses such a clip, or would make another one.
        """
        ...

    def most_frames(self, spec: ClipSpec) -> int:
        """Return how many frames the clip may have of what was ordered for *spec*."""
        ...

    def look(self, name: str) -> Standing:
        """Return how *name* stands.

        Raises:
            EngineFailed: It is not known there any more.
        """
        ...

    def fetch(
        self, name: str, standing: Standing, file: BinaryIO, check: Callable[[], None]
    ) -> None:
        """Write the finished clip into *file*, with *check* called now and then."""
        ...

    def cancel(self, name: str) -> bool:
        """Ask for an end of *name*; return whether there is one."""
        ...

    def forget(self, name: str) -> None:
        """Let the server delete what it keeps of *name*, which is over. Never raises."""
        ...

    def close(self) -> None: ...


@dataclass
class _Left:
    """A clip that was given up and that its server still draws."""

    name: str
    until: float
    look_at: float


class RemoteEngine:
    """See `domain.ports.Engine`.

    Args:
        make_service: Returns the service; raises `ModelInvalid` where it cannot be spoken to.
    """

    def __init__(self, profile: ModelProfile, make_service: Callable[[Remote], Service]) -> None:
        if profile.remote is None:
            raise ModelInvalid(f"the profile {profile.name} names no server: add a table [remote]")
        self._profile = profile
        self._remote = profile.remote
        self._make_service = make_service
        self._service: Service | None = None
        self._model = ""
        self._left: _Left | None = None

    def load(self) -> None:
        """See that the server is there.

        Raises:
            ModelInvalid: The profile has no usable address, or a dialect nobody speaks.
            EngineFailed: The server does not answer, or refuses the key.
        """
        if self._service is not None:
            return
        service = self._make_service(self._remote)
        try:
            self._model = service.greet()
        except NoAnswer as error:
            service.close()
            raise EngineFailed(f"{error}; start the server, or check VIDMILL_REMOTE_URL") from error
        self._service = service
        log.info(
            "remote_engine_ready",
            profile=self._profile.name,
            host=service.host,
            model=self._model,
        )

    def warm(self, on_shape: Callable[[int, int], None]) -> None:
        """Draw nothing: warming is the server's own affair, and may be billed."""
        on_shape(1, 1)

    def identity(self) -> Mapping[str, str]:
        """Return what is known. Nobody here has seen the weights: `sha256` is `remote`."""
        names = {"name": self._profile.name, "revision": self._profile.revision}
        return {**names, "sha256": "remote", "engine": self._profile.engine, "served": self._model}

    def generate(
        self,
        spec: ClipSpec,
        *,
        allocate: Allocate,
        watch: Watch,
        show: Show | None = None,  # noqa: ARG002  no server shows its pictures
        lora: LoraFiles | None = None,  # noqa: ARG002  its profile takes none
    ) -> Frames:
        """Have *spec* rendered; see the port.

        Raises:
            SpecUnsupported: Profile or server cannot make such a clip.
        """
        service = self._open_service
        refuse_unsupported(self._profile, spec)
        watch.check()
        name = self._submit(service, spec, watch)
        try:
            standing = self._await(service, name, watch)
            with tempfile.TemporaryFile() as file:
                self._fetch(service, name, standing, file, watch)
                frames = self._read(service, file, spec, allocate=allocate, watch=watch)
        except JobCancelled:
            self._give_up(service, name)
            raise
        except WorkError:
            service.forget(name)
            raise
        service.forget(name)
        return frames

    def is_busy(self) -> bool:
        left, now = self._left, time.monotonic()
        if left is None:
            return False
        if now < left.look_at:
            return True
        if now > left.until or self._is_over(left):
            self._left = None
        else:
            left.look_at = now + self._remote.poll_s[1]
        return self._left is not None

    def close(self) -> None:
        if self._service is not None:
            self._service.close()
        self._service = None

    @property
    def _open_service(self) -> Service:
        if self._service is None:
            raise EngineFailed("the server was not asked yet; call load() first")
        return self._service

    def _submit(self, service: Service, spec: ClipSpec, watch: Watch) -> str:
        watch.report(Phase.STARTING, 0, 1)
        patience = _Patience(self._remote, watch)
        while True:
            try:
                name = service.submit(spec)
            except NoAnswer as error:
                if error.is_sent:  # a second order might be a second clip
                    raise EngineFailed(f"{error}; it may have taken the order") from error
                patience.bear(error)
            else:
                log.info("remote_clip_ordered", host=service.host, name=name)
                return name

    def _await(self, service: Service, name: str, watch: Watch) -> Standing:
        """Return the standing of *name* once it is done, reporting until then."""
        patience = _Patience(self._remote, watch)
        is_begun = False
        while True:
            try:
                standing = service.look(name)
            except NoAnswer as error:
                patience.bear(error)
                continue
            patience.renew(is_news=standing.state is not State.QUEUED and not is_begun)
            if standing.error is not None:
                raise standing.error
            if standing.state is not State.QUEUED:
                if not is_begun:
                    watch.report(Phase.STARTING, 1, 1)
                is_begun = True
                watch.report(Phase.DENOISING, *self._share(standing))
            watch.check()
            if standing.state is State.DONE:
                return standing
            patience.wait()

    def _share(self, standing: Standing) -> tuple[int, int]:
        if standing.state is State.DONE:
            return 100, 100
        is_told = self._remote.progress is Progress.PERCENT
        return (min(99, max(0, standing.percent or 0)) if is_told else 0), 100

    def _fetch(
        self, service: Service, name: str, standing: Standing, file: BinaryIO, watch: Watch
    ) -> None:
        patience = _Patience(self._remote, watch)
        while True:
            file.seek(0)
            file.truncate()
            try:
                service.fetch(name, standing, file, watch.check)
            except NoAnswer as error:
                patience.bear(error)
            else:
                file.seek(0)
                return

    def _read(
        self,
        service: Service,
        file: BinaryIO,
        spec: ClipSpec,
        *,
        allocate: Allocate,
        watch: Watch,
    ) -> Frames:
        """Decode *file*; what it may have too many or too few, the profile says."""
        wanted, rule = spec.num_frames, self._remote
        frames = allocate((wanted, spec.native.height_px, spec.native.width_px, 3))

        def on_frame(count: int) -> None:
            watch.report(Phase.DECODING, min(count, wanted), wanted)
            watch.check()

        most = max(wanted, service.most_frames(spec)) + rule.frames_over
        count = decode_into(file, frames, fps=spec.native_fps, most=most, on_frame=on_frame)
        if count < wanted - rule.frames_short or count == 0:
            raise BadOutput(f"the video has {count} frames, asked for were {wanted}")
        frames[count:] = frames[min(count, wanted) - 1]
        watch.report(Phase.DECODING, wanted, wanted)
        return frames

    def _give_up(self, service: Service, name: str) -> None:
        """Stop *name* if the server can; else leave it, and remember that it is there."""
        try:
            standing = service.look(name)
            is_stopped = standing.is_over or (self._can_stop(standing) and service.cancel(name))
        except EngineFailed:
            return  # it is not known there any more
        except NoAnswer:
            standing, is_stopped = None, False
        if standing is not None and standing.is_over:
            service.forget(name)
        if is_stopped:
            return
        log.warning("remote_clip_left_running", name=name, is_billed=service.is_billed)
        if not service.is_shared:
            now = time.monotonic()
            until = now + self._remote.busy_limit_s
            self._left = _Left(name, until=until, look_at=now + self._remote.poll_s[0])

    def _can_stop(self, standing: Standing) -> bool:
        cancel = self._remote.cancel
        return cancel is Cancel.NOW or (cancel is Cancel.QUEUED and standing.state is State.QUEUED)

    def _is_over(self, left: _Left) -> bool:
        service = self._open_service
        try:
            if not service.look(left.name).is_over:
                return False
        except EngineFailed:
            return True
        except NoAnswer:
            return False
        service.forget(left.name)
        return True


class _Patience:
    """The waits of one clip: longer each time, heeding the watch, and not for ever in vain."""

    def __init__(self, remote: Remote, watch: Watch) -> None:
        self._remote = remote
        self._watch = watch
        self._wait_s = remote.poll_s[0]
        self._since: float | None = None

    def wait(self, least_s: float = 0.0) -> None:
        """Sleep until the next try is due; raises `JobCancelled` as the watch does."""
        ends_at = time.monotonic() + max(least_s, self._wait_s * random.uniform(0.8, 1.0))
        self._wait_s = min(self._wait_s * _GROWTH, self._remote.poll_s[1])
        while (left_s := ends_at - time.monotonic()) > 0:
            self._watch.check()
            time.sleep(min(left_s, _HEED_S))
        self._watch.check()

    def bear(self, error: NoAnswer) -> None:
        """Wait after *error*.

        Raises:
            EngineFailed: It has been so for too long.
        """
        now, limit_s = time.monotonic(), self._remote.patience_s
        if self._since is None:
            self._since = now
            log.warning("remote_gives_no_answer", reason=error.brief, patience_s=limit_s)
        if now - self._since + error.wait_s > limit_s:
            raise EngineFailed(f"{error}, for over {limit_s:g} s") from error
        self.wait(error.wait_s)

    def renew(self, *, is_news: bool) -> None:
        """Note that the server answered; with *is_news*, look again as soon as at first."""
        if self._since is not None:
            log.info("remote_answers_again", seconds=round(time.monotonic() - self._since, 1))
        self._since = None
        if is_news:
            self._wait_s = self._remote.poll_s[0]
