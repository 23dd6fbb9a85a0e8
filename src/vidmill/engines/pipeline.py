"""Loads a diffusers folder of the Wan2.2 architecture as its profile says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError

from vidmill.domain.errors import EngineFailed, EngineOutOfMemory, ModelInvalid
from vidmill.domain.profile import Layout, ModelProfile
from vidmill.engines.distilled import fetch_pair
from vidmill.engines.fingerprint import fingerprint
from vidmill.engines.folder import require_sound
from vidmill.engines.hub import fetch_folder
from vidmill.engines.placement import Placement, first_homes, smaller_layout
from vidmill.engines.reading import Homes, read_pipeline
from vidmill.engines.speed import require_possible, speed_up
from vidmill.profiles import revision_of


@dataclass(frozen=True)
class Parts:
    """A `WanPipeline` whose parts hold their weights, on any device.

    Attributes:
        fingerprint: Tells these weights from others; called when somebody asks.
    """

    pipe: Any
    fingerprint: Callable[[], dict[str, str]]


OpenParts = Callable[[ModelProfile, str, Homes], Parts]
"""Brings the parts of a profile into memory from a source, each where it is wanted first.

`open_folder`, or a bench's own.
"""


def choose_device(name: str) -> torch.device:
    """Return the device called *name*; `auto` is the first CUDA device, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def device_errors(remedy: str = "") -> Iterator[None]:
    """Turn torch's errors into ours: no memory -> `EngineOutOfMemory`, others -> `EngineFailed`.

    *remedy* ends the message of the former, if the device is what has no memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        torch.cuda.empty_cache()
        what = f"the device ran out of memory: {_first_line(error)}"
        raise EngineOutOfMemory(f"{what}; {remedy}" if remedy else what) from error
    except RuntimeError as error:
        if "allocate memory" in str(error):  # torch's CPU allocator has no class of its own
            raise EngineOutOfMemory(f"the host ran out of memory: {_first_line(error)}") from error
        raise EngineFailed(f"the device failed: {_first_line(error)}") from error


def load_pipeline(
    profile: ModelProfile,
    source: str,
    layout: Layout,
    *,
    device: torch.device,
    open_parts: OpenParts,
) -> tuple[Parts, Placement]:
    """Return the parts of *source*, placed for *device*, as fast as *profile* asks.

    Raises:
        ModelInvalid: The source does not hold what its own index promises, or the profile asks for
            what the device cannot do.
        EngineOutOfMemory: The weights do not fit.
    """
    with device_errors(smaller_layout(profile, layout)):
        require_possible(profile, device=device)
        # Before the parts: reading them takes the hub client off the network.
        pair = fetch_pair(profile.distilled) if profile.distilled else None
        parts = open_parts(profile, source, first_homes(profile, layout, device=device))
        chosen = speed_up(parts.pipe, profile, pair, device=device)
        placement = Placement(parts.pipe, layout, device=device)
    return Parts(parts.pipe, lambda: {**parts.fingerprint(), **chosen}), placement


def open_folder(profile: ModelProfile, source: str, homes: Homes) -> Parts:
    """Return the parts that lie in the folder *source*, or that the hub gives by that name.

    Raises:
        ModelInvalid: There is no such folder, or it does not hold what its own index promises.
    """
    folder = fetch_folder(source, revision_of(profile, source))
    require_sound(profile, folder)
    try:
        pipe = read_pipeline(profile, folder, homes)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelInvalid(
            f"{folder} does not load: {_first_line(error)}; restore the folder from its source"
        ) from error
    return Parts(pipe, lambda: fingerprint(folder))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
