"""A clip in memory that two processes share: an anonymous file, passed as a descriptor.

It has no name, so nothing needs unlinking: the kernel frees it when the last process that holds it
closes it or dies, however it dies. Nor does it count against the size of `/dev/shm`, which is 64 MB
in a container by default, less than one 720p clip.
"""

import math
import mmap
import os
from pathlib import Path
from typing import cast

import numpy as np

from vidmill.domain.errors import EngineOutOfMemory
from vidmill.domain.ports import Frames

Shape = tuple[int, int, int, int]


def create(shape: Shape) -> tuple[int, Frames]:
    """Return a descriptor, which the caller closes, and zeroed frames `(T, H, W, 3)`.

    Raises:
        EngineOutOfMemory: The pages could not be had. They are taken now, because a lack found
            later would be a SIGBUS in the middle of a decode.
    """
    size_bytes = math.prod(shape)
    if size_bytes > available_bytes():  # the kernel would rather kill somebody than refuse
        raise _out_of_memory(size_bytes, "the machine has less left")
    descriptor = os.memfd_create("vidmill-frames", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError as error:
        os.close(descriptor)
        raise _out_of_memory(size_bytes, str(error.strerror)) from error
    return descriptor, attach(descriptor, shape)


def attach(descriptor: int, shape: Shape) -> Frames:
    """Map the frames behind *descriptor*; the array stays valid after the descriptor is closed."""
    buffer = mmap.mmap(descriptor, math.prod(shape))
    return cast("Frames", np.frombuffer(buffer, dtype=np.uint8).reshape(shape))


def available_bytes() -> int:
    """Return what the kernel thinks it could give without swapping (`MemAvailable`, proc(5))."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("MemAvailable:")]
    return int(line.split()[1]) * 1024


def _out_of_memory(size_bytes: int, reason: str) -> EngineOutOfMemory:
    return EngineOutOfMemory(
        f"no shared memory for a clip of {size_bytes / 2**20:.0f} MiB: {reason}; "
        "give the worker more memory, or lower VIDMILL_FINISH_BACKLOG"
    )
