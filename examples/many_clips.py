"""Makes several clips at once on asyncio, and keeps going when one fails.

python many_clips.py out "a red ball" "a blue star"
"""

import asyncio
import sys
from pathlib import Path

from vidmill.client import AsyncVidmill, ClipRequest


async def make(folder: Path, prompts: list[str]) -> None:
    clips = [ClipRequest(prompt=prompt, duration_s=3, resolution="480p") for prompt in prompts]
    async with AsyncVidmill() as vidmill:
        async for outcome in vidmill.generate_many(clips):
            if outcome.video:
                print("saved", await outcome.video.save(folder / f"{outcome.index}.mp4"))
            else:
                print("failed", prompts[outcome.index], outcome.error)


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1]), sys.argv[2:]))
