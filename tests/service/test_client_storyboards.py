"""The SDK's and the command line's storyboards against the real API; the workers by hand."""

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.desks import KEY, make_bench
from tests.servers import Server, deliver, fail, working
from tests.storyboards import JOINED, joining
from vidmill.cli.app import run
from vidmill.client import (
    AsyncVidmill,
    Conflict,
    InvalidRequest,
    NotFound,
    Shot,
    Storyboard,
    StoryboardFailed,
    Vidmill,
)

pytestmark = pytest.mark.sqlite
"""What is tried here is a client; `tests/service/storyboards` tries both databases."""

Captured = pytest.CaptureFixture[str]

SHOTS: list[Shot] = [
    {"prompt": "a red ball", "duration": 3.0, "crossfade": 0.5},
    {"prompt": "a green ball", "duration": 4.0},
]
FILE = """
resolution = "480p"
crossfade = 0.5

[[shots]]
prompt = "a red ball"
duration = 3.0

[[shots]]
prompt = "a green ball"
duration = 4.0
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    folder = tmp_path / "server"
    folder.mkdir()
    bench = make_bench(folder)
    server = Server(bench)
    monkeypatch.setenv("VIDMILL_URL", server.url)
    monkeypatch.setenv("VIDMILL_API_KEY", KEY)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    yield server
    server.stop()
    bench.close()
    structlog.reset_defaults()


@pytest.fixture
def vidmill(server: Server) -> Iterator[Vidmill]:
    with Vidmill(server.url, KEY) as client:
        yield client


def test_shots_are_made_joined_fetched_and_one_is_replaced(
    server: Server, vidmill: Vidmill, tmp_path: Path
) -> None:
    assert vidmill.storyboards.estimate(SHOTS, resolution="480p").price.credits == 70
    seen: list[Storyboard] = []
    board = vidmill.storyboards.create(SHOTS, resolution="480p", name="balls")
    with working(server.bench, deliver, deliver), joining(server.bench):
        done = vidmill.storyboards.wait(board.storyboard_id, on_progress=seen.append, timeout_s=60)
    assert (done.state, done.duration, done.name) == ("completed", 6.5, "balls")
    assert seen[-1] == done
    path = vidmill.storyboards.save(done, tmp_path / "out" / "whole.mp4")
    assert path.read_bytes() == JOINED

    again = vidmill.storyboards.replace_shot(board.storyboard_id, 2, prompt="a star")
    with pytest.raises(Conflict):
        vidmill.storyboards.delete(board.storyboard_id)
    with working(server.bench, deliver), joining(server.bench):
        done = vidmill.storyboards.wait(board.storyboard_id, timeout_s=60)
    assert (again.revision, done.result and done.result.revision) == (2, 2)
    assert [shot.prompt for shot in done.shots] == ["a red ball", "a star"]
    assert [one.storyboard_id for one in vidmill.storyboards.list()] == [board.storyboard_id]
    vidmill.storyboards.delete(board.storyboard_id)
    with pytest.raises(NotFound):
        vidmill.storyboards.get(board.storyboard_id)


def test_asyncio_hears_of_a_shot_that_failed_and_of_wrong_fields(server: Server) -> None:
    async def ask() -> None:
        async with AsyncVidmill(server.url, KEY) as vidmill:
            with pytest.raises(InvalidRequest) as refused:
                await vidmill.storyboards.create(["", "b"])
            assert [error.pointer for error in refused.value.errors] == ["#/shots/0/prompt"]
            board = await vidmill.storyboards.create(["a", "b"])
            with pytest.raises(StoryboardFailed, match="shot 1"):
                await vidmill.storyboards.wait(board.storyboard_id, timeout_s=60)
            with pytest.raises(NotFound):
                await vidmill.storyboards.save(board.storyboard_id, "whole.mp4")

    with working(server.bench, fail, deliver):
        asyncio.run(ask())
    assert not Path("whole.mp4").exists()


def test_a_file_of_shots_becomes_one_clip(server: Server, capsys: Captured) -> None:
    Path("spring.toml").write_text(FILE)
    assert run(["storyboard", "make", "spring.toml", "--estimate"]) == 0
    assert capsys.readouterr().out == "6.5 s, 70 credits\n"

    with working(server.bench, deliver, deliver), joining(server.bench):
        assert run(["storyboard", "make", "spring.toml", "-o", "spring.mp4"]) == 0

    said = capsys.readouterr()
    assert Path("spring.mp4").read_bytes() == JOINED
    assert said.out == "spring.mp4  6.5 s\n"
    assert "completed, 2 of 2 shots" in said.err
    assert run(["storyboard", "make", "spring.toml", "-o", "spring.mp4"]) == 2


def test_a_shot_is_replaced_looked_at_and_cancelled(server: Server, capsys: Captured) -> None:
    Path("spring.json").write_text(json.dumps({"shots": ["a", "b"]}))
    assert run(["storyboard", "make", "spring.json", "--no-wait", "--json"]) == 0
    board_id = json.loads(capsys.readouterr().out)["storyboard_id"]

    assert run(["storyboard", "replace", board_id, "2", "--prompt", "c", "--no-wait"]) == 0
    assert run(["storyboard", "status", board_id]) == 0
    shown = capsys.readouterr().out
    assert f"{board_id}  rendering  0%" in shown
    assert [line.split()[-1] for line in shown.splitlines()[-2:]] == ["a", "c"]
    assert run(["storyboard", "cancel", board_id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "cancelled"
    assert run(["storyboard", "replace", board_id, "9", "--no-wait"]) == 1


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "shots = ", "is not as its name says"),
        ("a.json", "[]", "has no list of shots"),
        ("b.toml", None, "cannot be read"),
    ],
)
def test_a_file_that_says_nothing_is_refused(
    name: str, text: str | None, said: str, capsys: Captured
) -> None:
    if text is not None:
        Path(name).write_text(text)

    assert run(["storyboard", "make", name]) == 2

    assert said in capsys.readouterr().err
