"""How many threads OpenCV may use."""

import cv2

MOST_THREADS = 8
"""Its calls take about a millisecond. With a thread for each of 100 cores, handing the work out
would cost more than the work, and steal from the other processes."""


def limit_threads() -> None:
    """Cap the threads of this process's OpenCV calls; smaller machines keep one per core."""
    cv2.setNumThreads(min(MOST_THREADS, cv2.getNumberOfCPUs()))
