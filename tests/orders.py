"""Remote engines for tests: a profile that names a twin, and a clip ordered through it."""

from dataclasses import replace
from typing import Any

import numpy as np

from tests.builders import make_spec
from tests.twins import KEY, VideosTwin
from tests.watches import RecordingWatch
from vidmill.domain.ports import Engine, Frames
from vidmill.domain.profile import ModelProfile
from vidmill.domain.remote import Cancel, Progress, Remote
from vidmill.engines import ENGINES
from vidmill.plugins import load_plugin
from vidmill.profiles import load_profile


def remote_profile(engine: str, **rules: Any) -> ModelProfile:
    """Return the tiny model's profile with a server that is looked at all the time."""
    values: dict[str, Any] = {
        "dialect": "json" if engine == "openai_videos" else "legacy",
        "model": "" if engine == "openai_videos" else "wan2.6-t2v",
        "progress": Progress.PERCENT,
        "cancel": Cancel.NO,
        "poll_s": (0.001, 0.002),
        "patience_s": 5.0,
        **rules,
    }
    return replace(load_profile("tiny"), engine=engine, remote=Remote(**values))


def open_remote(engine: str, url: str, *, key: str = KEY, **rules: Any) -> Engine:
    """Return a loaded engine."""
    return open_remote_profile(remote_profile(engine, **rules), url, key=key)


def open_videos(twin: VideosTwin, **rules: Any) -> Engine:
    """Return a loaded engine of the twin, in the dialect that it speaks."""
    dialect = "form" if twin.is_form else "json"
    return open_remote("openai_videos", f"{twin.url}/v1", dialect=dialect, **rules)


def open_remote_profile(profile: ModelProfile, url: str, *, key: str) -> Engine:
    """Return a loaded engine of *profile*."""
    made: Engine = load_plugin(ENGINES, profile.engine)(profile, url, api_key=key)
    made.load()
    return made


def order(engine: Engine, watch: RecordingWatch | None = None, **changes: Any) -> Frames:
    """Have a small clip rendered."""
    spec = make_spec(**{"num_frames": 5, "duration_s": 1.0, "steps": 3, **changes})
    return engine.generate(
        spec,
        allocate=lambda shape: np.zeros(shape, np.uint8),
        watch=watch or RecordingWatch(),
    )
