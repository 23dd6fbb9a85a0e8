"""Which devices a worker computes on, from one word: `auto`, `cuda:1`, or `cuda:0-3` for four."""

import re

_ONE = re.compile(r"auto|cpu|cuda|cuda:\d+")
_RANGE = re.compile(r"cuda:(\d+)-(\d+)")

_COUNTS = (1, 2, 4, 8)
"""Among how many devices one clip may be divided. They divide the 40 attention heads of Wan2.2, and
most of its sizes; so do 5, 10 and 20 the heads, but no machine is built so."""


def devices_of(names: str) -> tuple[str, ...]:
    """Return the devices that *names* means, in order.

    Args:
        names: Devices with commas between; `cuda:A-B` is every one from A to B. `cpu,cpu` is a
            rehearsal without GPUs: two processes, one clip.

    Raises:
        ValueError: It names none, a number that cannot share a clip, or things that do not mix.
    """
    found: list[str] = []
    for name in (part.strip() for part in names.split(",")):
        if whole := _RANGE.fullmatch(name):
            first, last = map(int, whole.groups())
            found += [f"cuda:{number}" for number in range(first, last + 1)]
        elif _ONE.fullmatch(name):
            found.append(name)
        else:
            raise ValueError(f"{name!r} is no device; say auto, cpu, cuda, cuda:N or cuda:A-B")
    if reason := _why_not(found):
        raise ValueError(f"{names!r}: {reason}")
    return tuple(found)


def _why_not(devices: list[str]) -> str:
    if len(devices) not in _COUNTS:
        return f"{len(devices)} devices cannot share a clip; name 1, 2, 4 or 8"
    if len(devices) == 1 or set(devices) == {"cpu"}:
        return ""
    if not all(device.startswith("cuda:") for device in devices):
        return "several devices are named by their numbers: cuda:0,cuda:1"
    if len(set(devices)) < len(devices):
        return "each device can be named once"
    return ""
