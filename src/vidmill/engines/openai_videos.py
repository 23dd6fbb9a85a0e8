"""Servers that speak OpenAI's Videos API: vLLM-Omni, SGLang, FastVideo, another Vidmill.

All have `/videos`, and agree on little else. vLLM-Omni takes forms alone and answers for a failed
clip with an error status; SGLang takes JSON; all but a Vidmill keep their records in memory, so a
restart loses them. What their defaults would decide (24 fps, 80 frames, another shift) is always
said.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import EngineFailed, ModelInvalid, SpecUnsupported, WorkError
from vidmill.domain.profile import ModelProfile
from vidmill.domain.remote import Remote
from vidmill.engines.remote import RemoteEngine, Standing, State
from vidmill.engines.wire import NOT_FOUND, SUBMIT_S, NoAnswer, Reply, Wire

_STATES = {
    "queued": State.QUEUED,
    "in_progress": State.RUNNING,
    "completed": State.DONE,
    "failed": State.FAILED,
}

_REFUSALS = range(400, 500)
"""Statuses, and codes of failed clips, that another try would not change."""

_MODERATED = ("moderation", "content_policy", "safety")


def _as_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"json": fields}


def _as_form(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a multipart body; a URL-encoded one is refused by vLLM-Omni."""
    return {"files": {name: (None, _text(value)) for name, value in fields.items()}}


_DIALECTS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "json": _as_json,
    "form": _as_form,
}


class OpenAIVideosEngine(RemoteEngine):
    """See `domain.ports.Engine`.

    Args:
        url: Overrides the profile's; the part before `/videos`.
        api_key: Bearer token; empty = none.
    """

    def __init__(self, profile: ModelProfile, url: str = "", *, api_key: str = "") -> None:
        super().__init__(profile, lambda remote: Videos(remote, Wire(url or remote.url, api_key)))


class Videos:
    """See `engines.remote.Service`."""

    is_shared = False
    is_billed = False

    def __init__(self, remote: Remote, wire: Wire) -> None:
        if remote.dialect not in _DIALECTS:
            known = ", ".join(sorted(_DIALECTS))
            raise ModelInvalid(f"[remote] dialect {remote.dialect!r}: choose one of {known}")
        self._remote = remote
        self._wire = wire
        self.host = wire.host

    def greet(self) -> str:
        reply = self._wire.ask("GET", "/models")
        if reply.status == NOT_FOUND:  # FastVideo has no such route
            if self._wire.ask("GET", "/videos").status == NOT_FOUND:
                raise self._no_route(reply)
            return self._remote.model
        data = reply.doc.get("data")
        names = [str(each.get("id")) for each in data or () if isinstance(each, Mapping)]
        wanted = self._remote.model
        if wanted and names and wanted not in names:
            raise EngineFailed(
                f"{self._wire.host} serves {', '.join(names)[:300]} and not {wanted!r}: correct"
                " `model` in [remote]"
            )
        return wanted or (names[0] if names else "")

    def submit(self, spec: ClipSpec) -> str:
        body = _DIALECTS[self._remote.dialect](self._fields(spec))
        reply = self._wire.ask("POST", "/videos", timeout_s=SUBMIT_S, **body)
        if reply.status == NOT_FOUND:
            raise self._no_route(reply)
        if reply.status in _REFUSALS:
            raise SpecUnsupported(f"{self._wire.host} refuses it: {self._wire.words(reply.doc)}")
        name = reply.doc.get("id")
        if not reply.is_ok or not isinstance(name, str) or not name:
            raise self._no_answer(reply)
        return name

    def most_frames(self, spec: ClipSpec) -> int:
        return math.ceil(self._seconds(spec) * spec.native_fps) if self._is_timed else 0

    def look(self, name: str) -> Standing:
        reply = self._wire.ask("GET", f"/videos/{name}")
        state = _STATES.get(str(reply.doc.get("status")))
        if state is State.FAILED:
            return Standing(state=state, error=self._failure(reply))
        if reply.status == NOT_FOUND:
            raise EngineFailed(
                f"{self._wire.host} does not know the clip any more: it was restarted, or has"
                " replicas that do not share their records"
            )
        if not reply.is_ok or state is None:
            raise self._no_answer(reply)
        percent = reply.doc.get("progress")
        return Standing(state=state, percent=int(percent) if isinstance(percent, int) else None)

    def fetch(
        self, name: str, standing: Standing, file: BinaryIO, check: Callable[[], None]
    ) -> None:
        del standing
        status = self._wire.fetch(f"/videos/{name}/content", file, check=check, is_ours=True)
        if not file.tell():  # "not yet" for some moments after `completed`, on some
            raise NoAnswer(f"{self._wire.host} answered {status} for the video", is_sent=False)

    def cancel(self, name: str) -> bool:
        return self._wire.ask("DELETE", f"/videos/{name}").is_ok

    def forget(self, name: str) -> None:
        """Delete record and file, which these servers keep for ever."""
        try:
            self._wire.ask("DELETE", f"/videos/{name}")
        except (NoAnswer, EngineFailed):
            return

    def close(self) -> None:
        self._wire.close()

    def _fields(self, spec: ClipSpec) -> dict[str, Any]:
        native = spec.native
        fields = {
            "model": self._remote.model,
            "prompt": spec.prompt,
            "negative_prompt": spec.negative_prompt,
            "size": str(native),
            "width": native.width_px,
            "height": native.height_px,
            "num_frames": spec.num_frames,
            "fps": spec.native_fps,
            "seconds": f"{self._seconds(spec):g}",
            "num_inference_steps": spec.steps,
            "guidance_scale": spec.guidance_scale,
            "guidance_scale_2": spec.guidance_scale_2,
            "flow_shift": spec.flow_shift,
            "seed": spec.seed,
        }
        if not self._remote.model:
            del fields["model"]
        omit = self._remote.omit
        return {n: v for n, v in fields.items() if n not in omit} | dict(self._remote.extra)

    @property
    def _is_timed(self) -> bool:
        """Whether seconds alone say how long the clip shall be."""
        return "num_frames" in self._remote.omit

    def _seconds(self, spec: ClipSpec) -> float:
        """Return the fewest tenths of a second that hold every frame."""
        if not self._is_timed:
            return math.ceil(spec.duration_s)  # SGLang's field is an integer
        return math.ceil(10 * (spec.num_frames - 1) / spec.native_fps) / 10

    def _failure(self, reply: Reply) -> WorkError:
        """Return why the clip of *reply* failed, and with it whether another try may help."""
        error = reply.doc.get("error")
        code = str(error.get("code", "") if isinstance(error, Mapping) else "").lower()
        words = (
            f"{self._wire.host} failed: {self._wire.words(reply.doc) or code or 'no reason given'}"
        )
        status = int(code) if code.isascii() and code.isdigit() else reply.status
        if status in _REFUSALS or any(word in code for word in _MODERATED):
            return SpecUnsupported(words)
        return EngineFailed(words)

    def _no_route(self, reply: Reply) -> EngineFailed:
        words = self._wire.words(reply.doc) or "no reason given"
        return EngineFailed(
            f"{self._wire.host} has nothing there: {words};"
            " VIDMILL_REMOTE_URL is the part before /videos, and ends with /v1 as a rule"
        )

    def _no_answer(self, reply: Reply) -> NoAnswer:
        words = self._wire.words(reply.doc)
        return NoAnswer(f"{self._wire.host} answered {reply.status}", words, is_sent=True)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
