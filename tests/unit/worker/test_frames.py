import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vidmill.domain.errors import EngineOutOfMemory
from vidmill.worker import frames

SHAPE = (3, 4, 5, 3)


def open_frames() -> set[Path]:
    """Descriptors of frame memory alone: threads of other tests open and close their own."""
    held = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if "vidmill-frames" in str(descriptor.readlink()):
                held.add(descriptor)
    return held


def test_two_mappings_of_one_descriptor_are_the_same_memory() -> None:
    descriptor, written = frames.create(SHAPE)
    read = frames.attach(descriptor, SHAPE)
    written[1, 2, 3] = (10, 20, 30)
    assert read[1, 2, 3].tolist() == [10, 20, 30]
    os.close(descriptor)


def test_frames_outlive_their_descriptor_and_begin_black() -> None:
    descriptor, array = frames.create(SHAPE)
    os.close(descriptor)
    assert array.shape == SHAPE
    assert array.dtype == np.uint8
    assert not array.any()
    array[:] = 255
    assert array.all()


def test_nothing_is_left_when_frames_are_dropped() -> None:
    before = open_frames()
    descriptor, array = frames.create(SHAPE)
    assert open_frames() > before
    os.close(descriptor)
    del array
    assert open_frames() == before


def test_lack_of_memory_is_a_retryable_error_that_names_size_and_remedy() -> None:
    program = """
import resource
from vidmill.domain.errors import EngineOutOfMemory
from vidmill.worker import frames
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    frames.create((1, 1024, 1024, 3))
except EngineOutOfMemory as error:
    print(error.is_retryable, error)
"""
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith("True no shared memory for a clip of 3 MiB")
    assert "VIDMILL_FINISH_BACKLOG" in said


def test_clip_larger_than_what_the_machine_has_left_is_refused_and_leaks_no_descriptor() -> None:
    before = open_frames()
    with pytest.raises(EngineOutOfMemory, match="less left"):
        frames.create((2**20, 2**20, 2**10, 3))
    assert open_frames() == before
