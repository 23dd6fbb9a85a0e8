"""Alibaba Cloud Model Studio ("DashScope"): a service that sells clips by the second.

It fixes steps, guidance and shift itself: a profile's are nominal, and not sent. It tells states
alone, and stops only what is not begun: a clip cancelled later is drawn and billed all the same.
Results lie there for 24 hours.
"""

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from vidmill.domain.clip import Aspect, ClipSpec, Size
from vidmill.domain.errors import EngineFailed, ModelInvalid, SpecUnsupported, WorkError
from vidmill.domain.profile import ModelProfile
from vidmill.domain.remote import Remote
from vidmill.engines.remote import RemoteEngine, Standing, State
from vidmill.engines.wire import NOT_FOUND, SUBMIT_S, NoAnswer, Reply, Wire

_SUBMIT = "/services/aigc/video-generation/video-synthesis"
_NOBODYS = "/tasks/00000000-0000-0000-0000-000000000000"
"""Asking for it costs nothing, and tells whether the key is good."""

_STATES = {
    "PENDING": State.QUEUED,
    "SUSPENDED": State.QUEUED,
    "RUNNING": State.RUNNING,
    "SUCCEEDED": State.DONE,
    "FAILED": State.FAILED,
    "CANCELED": State.FAILED,
}
_UNKNOWN = "UNKNOWN"

_LINES = {832 * 480: "480P", 1280 * 720: "720P", 1920 * 1080: "1080P"}
"""Names of sizes by about how many pixels they have."""

_PERMANENT = ("InvalidParameter", "DataInspection", "BadRequest", "IPInfringement")
_THROTTLING = "Throttling"


def _legacy(size: Size) -> dict[str, Any]:
    """wan2.6 and older: exact pixels."""
    return {"size": f"{size.width_px}*{size.height_px}"}


def _current(size: Size) -> dict[str, Any]:
    """wan2.7 and newer: a class of sizes and a shape."""
    pixels, share = size.width_px * size.height_px, size.width_px / size.height_px
    lines = min(_LINES, key=lambda each: abs(each - pixels))
    return {
        "resolution": _LINES[lines],
        "ratio": min(Aspect, key=lambda aspect: abs(_share(aspect) - share)).value,
    }


_DIALECTS: Mapping[str, Callable[[Size], dict[str, Any]]] = {
    "legacy": _legacy,
    "current": _current,
}


class DashScopeEngine(RemoteEngine):
    """See `domain.ports.Engine`.

    Args:
        url: Overrides the profile's; ends with `/api/v1`. A key is good in its region alone.
        api_key: Required by the service.
    """

    def __init__(self, profile: ModelProfile, url: str = "", *, api_key: str = "") -> None:
        super().__init__(
            profile, lambda remote: Synthesis(remote, Wire(url or remote.url, api_key))
        )


class Synthesis:
    """See `engines.remote.Service`."""

    is_shared = True
    is_billed = True

    def __init__(self, remote: Remote, wire: Wire) -> None:
        if remote.dialect not in _DIALECTS:
            known = ", ".join(sorted(_DIALECTS))
            raise ModelInvalid(f"[remote] dialect {remote.dialect!r}: choose one of {known}")
        if not remote.model:
            raise ModelInvalid("[remote] model is empty: name the model to buy from")
        self._remote = remote
        self._wire = wire
        self.host = wire.host

    def greet(self) -> str:
        reply = self._wire.ask("GET", _NOBODYS)
        if reply.status == NOT_FOUND and not self._output(reply):
            raise EngineFailed(
                f"{self._wire.host} has nothing there: {self._wire.words(reply.doc)};"
                " VIDMILL_REMOTE_URL is the part before /services, and ends with /api/v1"
            )
        return self._remote.model

    def submit(self, spec: ClipSpec) -> str:
        parameters = {
            **_DIALECTS[self._remote.dialect](spec.native),
            "duration": self._seconds(spec),
            "seed": spec.seed,
            "prompt_extend": False,  # on by default: then another prompt is drawn than is shown
            "watermark": False,
            **self._remote.extra,
        }
        body = {
            "model": self._remote.model,
            "input": {"prompt": spec.prompt, "negative_prompt": spec.negative_prompt},
            "parameters": {n: v for n, v in parameters.items() if n not in self._remote.omit},
        }
        headers = {"X-DashScope-Async": "enable"}
        reply = self._wire.ask("POST", _SUBMIT, json=body, headers=headers, timeout_s=SUBMIT_S)
        name = self._output(reply).get("task_id")
        if reply.is_ok and isinstance(name, str) and name:
            return name
        code = str(reply.doc.get("code", ""))
        if code.startswith(_THROTTLING):
            brief = f"{self._wire.host} says {code}:"
            raise NoAnswer(brief, self._wire.words(reply.doc), is_sent=False)
        raise self._failure(code, reply.doc)

    def most_frames(self, spec: ClipSpec) -> int:
        return self._seconds(spec) * spec.native_fps + 1

    def look(self, name: str) -> Standing:
        reply = self._wire.ask("GET", f"/tasks/{name}")
        output = self._output(reply)
        status = str(output.get("task_status", ""))
        if status == _UNKNOWN:
            raise EngineFailed(f"{self._wire.host} does not know the clip any more")
        state = _STATES.get(status)
        if not reply.is_ok or state is None:
            brief = f"{self._wire.host} answered {reply.status}"
            raise NoAnswer(brief, self._wire.words(reply.doc), is_sent=True)
        error = None
        if state is State.FAILED:
            error = self._failure(str(output.get("code") or status), output)
        return Standing(state=state, error=error, url=str(output.get("video_url") or ""))

    def fetch(
        self, name: str, standing: Standing, file: BinaryIO, check: Callable[[], None]
    ) -> None:
        """Download without the key: the address is signed, and of another host."""
        if not standing.url.startswith(("https://", "http://")):
            raise EngineFailed(f"{self._wire.host} names no file for the finished clip {name}")
        status = self._wire.fetch(standing.url, file, check=check, is_ours=False)
        if not file.tell():
            raise NoAnswer(f"{status} was the answer for the finished video", is_sent=False)

    def cancel(self, name: str) -> bool:
        return self._wire.ask("POST", f"/tasks/{name}/cancel").is_ok

    def forget(self, name: str) -> None:
        """Do nothing: it is forgotten there after 24 hours."""

    def close(self) -> None:
        self._wire.close()

    def _seconds(self, spec: ClipSpec) -> int:
        """Return how many seconds to buy: the fewest that hold the clip."""
        needed_s = (spec.num_frames - 1) / spec.native_fps
        whole = -int(-min(needed_s, spec.duration_s) // 1)
        sold = self._remote.durations or (max(1, whole),)
        fitting = [each for each in sold if each >= whole]
        if not fitting:
            raise SpecUnsupported(f"{self._wire.host} sells {sold[-1]} s at most, not {whole} s")
        return fitting[0]

    def _failure(self, code: str, doc: Mapping[str, Any]) -> WorkError:
        words = self._words(code, doc)
        if any(name in code for name in _PERMANENT):
            return SpecUnsupported(words)
        return EngineFailed(words)

    def _words(self, code: str, doc: Mapping[str, Any]) -> str:
        return f"{self._wire.host} says {code or 'nothing'}: {self._wire.words(doc)}".rstrip(": ")

    def _output(self, reply: Reply) -> Mapping[str, Any]:
        found = reply.doc.get("output")
        return found if isinstance(found, Mapping) else {}


def _share(aspect: Aspect) -> float:
    across, down = map(int, aspect.value.split(":"))
    return across / down
