"""Engines: who makes frames from a spec. A new one is a module and a line in `ENGINES`."""

import os

# Read by OpenMP when torch loads it. By default its threads spin at every barrier, and on cores
# that have other work the tiny model then takes four times as long (3.6 s a clip against 0.9 s).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

ENGINES: dict[str, str] = {
    "wan": "vidmill.engines.wan:WanEngine",
    "openai_videos": "vidmill.engines.openai_videos:OpenAIVideosEngine",
    "dashscope": "vidmill.engines.dashscope:DashScopeEngine",
}
"""Engine classes by name. Each is called with a profile, a source, and what `wiring` says it takes.

A source is a folder or hub id of weights, or the address of the server that has them.
"""

RANKED_ENGINES: dict[str, str] = {
    "wan": "vidmill.engines.ranks:RankedEngine",
}
"""Those for a worker with several devices; each is also given `mates`, the other processes."""
