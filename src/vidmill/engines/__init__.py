"""Engines: who makes frames from a spec. A new one is a module and a line in `ENGINES`."""

import os

# Read by OpenMP when torch loads it. By default its threads spin at every barrier, and on cores
# that have other work the tiny model then takes four times as long (3.6 s a clip against 0.9 s).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

ENGINES: dict[str, str] = {
    "wan": "vidmill.engines.wan:WanEngine",
}
"""Engine classes by name. Each is called with `(profile, source, *, device, threads)`."""
