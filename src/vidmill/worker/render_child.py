"""The render child: holds the model, turns specs into frames. One process, one run at a time."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vidmill.domain.clip import ClipSpec
from vidmill.domain.devices import devices_of
from vidmill.domain.errors import EngineFailed, VidmillError
from vidmill.domain.ports import Engine, Frames, Show
from vidmill.worker import frames as shared
from vidmill.worker.child import Link, RunWatch, connect
from vidmill.worker.proc import give_back_memory

if TYPE_CHECKING:
    from vidmill.worker.lora_files import LoraShelf
    from vidmill.worker.preview_frames import PreviewFrames

EXIT_BROKEN = 3
"""Exit status when the model cannot be loaded; the reason was said before."""

REST_LOOK_S = 0.5
"""How often an engine is asked whether its device is free of a clip that was given up."""

EXIT_POISONED = 4
"""Exit status after the device failed: a CUDA error leaves the process unable to do anything."""


@dataclass
class Owed:
    """What the supervisor waits to hear: at first whether the model loads, then how a run went.

    Attributes:
        word: The message that says it went wrong; empty = nothing is waited for.
        fields: What else is in that message.
    """

    word: str = "broken"
    fields: dict[str, Any] = field(default_factory=dict)


class ClipMemory:
    """Hands the engine shared memory for one clip, and remembers the descriptor."""

    def __init__(self) -> None:
        self.descriptor: int | None = None
        self.shape: shared.Shape | None = None

    def __call__(self, shape: shared.Shape) -> Frames:
        self.close()
        self.shape = shape
        self.descriptor, array = shared.create(shape)
        return array

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
        self.descriptor = None


def open_engine(order: dict[str, Any], *, give_up: Callable[[Exception], None]) -> Engine:
    """Build the engine that *order* names, importing it now; for *give_up* see `worker.mates`."""
    from vidmill.plugins import load_plugin
    from vidmill.profiles import load_profile

    engine = load_plugin({"engine": order["engine"]}, "engine")
    profile, options = load_profile(order["profile"]), dict(order["options"])
    devices = devices_of(options.get("device", "auto"))
    if len(devices) > 1:
        from vidmill.worker.mates import Mates

        mates = Mates(devices, order=order, give_up=give_up)
        options |= {"device": devices[0], "mates": mates}
    return cast("Engine", engine(profile, order["source"], **options))


def give_up(link: Link, owed: Owed, error: Exception) -> None:
    """Say *error* where an answer is owed, and end the process, whose main thread may hang."""
    if owed.word:
        link.say_failure(owed.word, error, **owed.fields)
    os._exit(EXIT_POISONED)


def prepare(link: Link, order: dict[str, Any], owed: Owed) -> Engine:
    """Load and warm the model, saying how far it is; ends the process when that fails."""
    try:
        engine = open_engine(order, give_up=partial(give_up, link, owed))
        engine.load()
        link.say("warming", done=0, total=0)
        engine.warm(lambda done, total: link.say("warming", done=done, total=total))
        link.say("ready", identity=dict(engine.identity()))
        owed.word = ""
    except VidmillError as error:
        link.say_failure("broken", error)
        sys.exit(EXIT_BROKEN)
    except Exception as error:  # the edge of this process: the supervisor decides
        link.say_failure("broken", error)
        raise
    return engine


def is_poisonous(error: Exception) -> bool:
    """Whether the process that met *error* must be replaced."""
    return isinstance(error, EngineFailed) and error.is_poisonous


def open_previews(order: dict[str, Any]) -> "PreviewFrames | None":
    """Return what keeps pictures of clips in the middle; None where the operator wants none."""
    if not order["preview_frames"]:
        return None
    from vidmill.storage import open_blobs
    from vidmill.worker.preview_frames import PreviewFrames

    return PreviewFrames(open_blobs(order["storage_url"]), Path(order["scratch"]))


def open_shelf(order: dict[str, Any]) -> "LoraShelf":
    """Return what keeps LoRA files on this machine."""
    from vidmill.storage import open_blobs
    from vidmill.worker.lora_files import LoraShelf

    return LoraShelf(
        blobs=open_blobs(order["storage_url"]),
        folder=Path(order["loras"]),
        capacity_bytes=order["lora_cache_bytes"],
    )


def render(
    engine: Engine,
    link: Link,
    order: dict[str, Any],
    *,
    waited_s: float,
    previews: "PreviewFrames | None",
    owed: Owed,
    shelf: "LoraShelf",
) -> float:
    """Render one spec; answer with the frames or with the reason there are none.

    Returns:
        When the answer went out: from then on the device is idle.
    """
    owed.word, owed.fields = "failed", {"run": order["run"], "is_last": True}
    run, spec = order["run"], ClipSpec.from_json(order["spec"])
    watch, memory = RunWatch(link, run), ClipMemory()
    try:
        with _shown(previews, spec, order["prefix"]) as show:
            style = {} if spec.lora is None else {"lora": shelf.get(spec.lora, watch.check)}
            engine.generate(spec, allocate=memory, watch=watch, show=show, **style)
        watch.check()
    except Exception as error:  # noqa: BLE001  the edge of this process: the supervisor decides
        answer_failure(engine, link, run=run, error=error)
    else:
        link.say(
            "frames",
            fd=memory.descriptor,
            run=run,
            shape=memory.shape,
            timings=watch.timings_s(),
            waited_s=waited_s,
        )
    owed.word = ""
    answered_at = time.monotonic()
    memory.close()
    give_back_memory()
    return answered_at


def answer_failure(engine: Engine, link: Link, *, run: int, error: Exception) -> None:
    """Say why there are no frames; returns once the device is free, never if it failed."""
    is_last = is_poisonous(error)
    is_resting = not is_last and engine.is_busy()
    link.say_failure("failed", error, run=run, is_last=is_last, is_resting=is_resting)
    if is_last:
        os._exit(EXIT_POISONED)  # tearing down a broken device in good order may hang
    if is_resting:
        rest(engine, link)


def rest(engine: Engine, link: Link) -> None:
    """Wait until the device is free, then say so: a job begun earlier would only wait there."""
    while engine.is_busy():
        time.sleep(REST_LOOK_S)
    link.say("ready", identity=dict(engine.identity()))


@contextmanager
def _shown(previews: "PreviewFrames | None", spec: ClipSpec, prefix: str) -> Iterator[Show | None]:
    """Give what keeps a run's pictures, and have all of them kept before the run is answered."""
    if previews is None:
        yield None
        return
    try:
        yield previews.shower(spec, prefix)
    finally:
        previews.settle()


def main(arguments: list[str]) -> None:
    link = connect(arguments)
    start, _ = link.hear()
    from vidmill.telemetry import about, configure_logging

    configure_logging(start["log_level"], start["log_format"])
    owed = Owed()
    engine, previews = prepare(link, start, owed), open_previews(start)
    shelf = open_shelf(start)
    idle_since = time.monotonic()
    while True:
        order, _ = link.hear()
        waited_s = round(time.monotonic() - idle_since, 5)
        with about(run=order["prefix"]):
            idle_since = render(
                engine, link, order, waited_s=waited_s, previews=previews, owed=owed, shelf=shelf
            )


if __name__ == "__main__":
    main(sys.argv[1:])
