from collections.abc import Iterator

import cv2
import pytest

from vidmill.media.threads import MOST_THREADS, limit_threads


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("before", [1, 64])
def test_threads_follow_the_cores_up_to_a_cap(before: int) -> None:
    cv2.setNumThreads(before)
    limit_threads()
    assert cv2.getNumThreads() == min(MOST_THREADS, cv2.getNumberOfCPUs())
