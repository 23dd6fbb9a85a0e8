"""Makes a clip, shows how it goes, and saves the MP4.

python one_clip.py "a red ball moves right" ball.mp4
"""

import sys

from vidmill.client import Task, Vidmill


def show(task: Task) -> None:
    print(f"{task.status} {task.phase or ''} {task.progress:.0%}", flush=True)


if __name__ == "__main__":
    prompt, path = sys.argv[1:3]
    with Vidmill() as vidmill:
        estimate = vidmill.estimate(prompt)
        if estimate.price:
            print(f"costs {estimate.price.credits} credits")
        video = vidmill.generate(prompt, duration_s=3, resolution="480p", on_progress=show)
        print(f"saved {video.save(path)}, seed {video.seed}")
