"""The render child: holds the model, turns specs into frames. One process, one run at a time."""

import os
import sys
import time
from typing import Any, cast

from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import EngineFailed, EngineOutOfMemory, VidmillError
from vidmill.domain.ports import Engine, Frames
from vidmill.worker import frames as shared
from vidmill.worker.child import Link, RunWatch, connect
from vidmill.worker.proc import give_back_memory

EXIT_BROKEN = 3
"""Exit status when the model cannot be loaded; the reason was said before."""

EXIT_POISONED = 4
"""Exit status after the device failed: a CUDA error leaves the process unable to do anything."""


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


def open_engine(order: dict[str, Any]) -> Engine:
    """Build the engine that *order* names, importing it now."""
    from vidmill.plugins import load_plugin
    from vidmill.profiles import load_profile

    engine = load_plugin({"engine": order["engine"]}, "engine")
    profile = load_profile(order["profile"])
    made = engine(profile, order["source"], device=order["device"], threads=order["threads"])
    return cast("Engine", made)


def prepare(link: Link, order: dict[str, Any]) -> Engine:
    """Load and warm the model, saying how far it is; ends the process when that fails."""
    try:
        engine = open_engine(order)
        engine.load()
        link.say("warming", done=0, total=0)
        engine.warm(lambda done, total: link.say("warming", done=done, total=total))
        link.say("ready", identity=dict(engine.identity()))
    except VidmillError as error:
        link.say_failure("broken", error)
        sys.exit(EXIT_BROKEN)
    except Exception as error:  # the edge of this process: the supervisor decides
        link.say_failure("broken", error)
        raise
    return engine


def is_poisonous(error: Exception) -> bool:
    """Whether the process that met *error* must be replaced. Memory that ran out is free again."""
    return isinstance(error, EngineFailed) and not isinstance(error, EngineOutOfMemory)


def render(engine: Engine, link: Link, order: dict[str, Any], *, waited_s: float) -> float:
    """Render one spec; answer with the frames or with the reason there are none.

    Returns:
        When the answer went out: from then on the device is idle.
    """
    run = order["run"]
    watch, memory = RunWatch(link, run), ClipMemory()
    try:
        engine.generate(ClipSpec.from_json(order["spec"]), allocate=memory, watch=watch)
        watch.check()
    except Exception as error:  # noqa: BLE001  the edge of this process: the supervisor decides
        is_last = is_poisonous(error)
        link.say_failure("failed", error, run=run, is_last=is_last)
        if is_last:
            os._exit(EXIT_POISONED)  # tearing down a broken device in good order may hang
    else:
        timings = watch.timings_s()
        link.say(
            "frames",
            fd=memory.descriptor,
            run=run,
            shape=memory.shape,
            timings=timings,
            waited_s=waited_s,
        )
    answered_at = time.monotonic()
    memory.close()
    give_back_memory()
    return answered_at


def main(arguments: list[str]) -> None:
    link = connect(arguments)
    start, _ = link.hear()
    from vidmill.telemetry import configure_logging

    configure_logging(start["log_level"], start["log_format"])
    engine = prepare(link, start)
    idle_since = time.monotonic()
    while True:
        order, _ = link.hear()
        waited_s = round(time.monotonic() - idle_since, 5)
        idle_since = render(engine, link, order, waited_s=waited_s)


if __name__ == "__main__":
    main(sys.argv[1:])
