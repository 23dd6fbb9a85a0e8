"""An engine is opened, or says what is wrong with its server."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
from starlette.responses import Response

from tests.orders import open_remote, open_videos, order, remote_profile
from tests.twins import VideosTwin
from vidmill.domain.errors import EngineFailed, ModelInvalid
from vidmill.domain.ports import Engine
from vidmill.engines.openai_videos import OpenAIVideosEngine


def test_a_server_that_lists_no_models_is_known_by_its_videos(sglang: VideosTwin) -> None:
    sglang.troubles.append(Response("", 404))
    assert order(open_videos(sglang)).std() > 0


opened = partial(open_remote, "openai_videos")


@pytest.mark.parametrize(
    ("make", "expected", "reason"),
    [
        (
            lambda url: opened(url, key="wrong"),
            EngineFailed,
            "refuses the key",
        ),
        (lambda _url: open_remote("openai_videos", ""), ModelInvalid, "VIDMILL_REMOTE_URL"),
        (
            lambda _url: open_remote("openai_videos", "gpu7:8000"),
            ModelInvalid,
            "VIDMILL_REMOTE_URL",
        ),
        (
            lambda _url: opened("http://127.0.0.1:9/v1"),
            EngineFailed,
            "127.0.0.1:9 cannot be reached: ConnectError; start the server",
        ),
        (
            lambda url: opened(url.removesuffix("/v1")),
            EngineFailed,
            "has nothing there: .*ends with /v1",
        ),
        (
            lambda url: opened(url, dialect="xml"),
            ModelInvalid,
            "'xml': choose one of form, json",
        ),
        (
            lambda url: opened(url, model="Wan9"),
            EngineFailed,
            "serves Wan2.2-T2V-A14B and not 'Wan9'",
        ),
    ],
)
def test_a_server_that_cannot_be_used_is_known_at_the_start(
    sglang: VideosTwin, make: Callable[[str], Engine], expected: type[Exception], reason: str
) -> None:
    with pytest.raises(expected, match=reason):
        make(f"{sglang.url}/v1")


def test_a_profile_without_a_server_is_refused() -> None:
    profile = remote_profile("openai_videos")
    with pytest.raises(ModelInvalid, match=r"\[remote\]"):
        OpenAIVideosEngine(type(profile)(**{**vars(profile), "remote": None}))


def test_identity_says_that_nobody_here_saw_the_weights(sglang: VideosTwin) -> None:
    identity = open_videos(sglang).identity()
    assert (identity["sha256"], identity["served"]) == ("remote", "Wan2.2-T2V-A14B")


def test_a_worker_with_a_remote_engine_loads_no_torch() -> None:
    code = (
        "import sys, vidmill.worker.render_child, vidmill.engines.openai_videos,"
        " vidmill.engines.dashscope; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
