"""The SDK's and the command line's storyboards against the real API; the workers by hand."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.desks import KEY
from tests.screens import Screen
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
def server(named_server: Server) -> Server:
    return named_server


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
    assert said.out == "spring.mp4  832x480, 6.5 s, revision 1, 0.00 MB\n"
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
    assert "cut" not in shown.splitlines()[-1]  # nothing follows the last
    assert run(["storyboard", "cancel", board_id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "cancelled"
    assert run(["storyboard", "replace", board_id, "9", "--no-wait"]) == 1


def test_what_was_not_waited_for_is_fetched_listed_and_deleted(
    server: Server, capsys: Captured
) -> None:
    Path("spring.toml").write_text('name = "[spring]"\n' + FILE)
    assert run(["storyboard", "make", "spring.toml", "--no-wait", "--json"]) == 0
    board_id = json.loads(capsys.readouterr().out)["storyboard_id"]
    assert run(["storyboard", "result", board_id]) == 1
    assert "has no video yet" in capsys.readouterr().err

    with working(server.bench, deliver, deliver), joining(server.bench):
        assert run(["storyboard", "result", board_id, "--wait"]) == 0

    assert Path(f"{board_id}.mp4").read_bytes() == JOINED
    for command in (["result", board_id], ["replace", board_id, "1"]):
        assert run(["storyboard", *command]) == 2  # the file is there
    capsys.readouterr()
    assert run(["storyboard", "list"]) == 0
    (row,) = capsys.readouterr().out.splitlines()[1:]
    assert row.split() == [board_id, "completed", "100%", "6.5", "s", "[spring]"]
    assert run(["storyboard", "status", board_id]) == 0
    assert "joined: 832x480, 6.5 s, revision 1" in capsys.readouterr().out
    assert run(["storyboard", "delete", board_id]) == 0
    assert capsys.readouterr().out == f"{board_id}  deleted\n"
    assert run(["storyboard", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_shot_that_failed_is_named_with_the_command_that_makes_it_anew(
    server: Server, capsys: Captured
) -> None:
    Path("spring.toml").write_text(FILE)

    with working(server.bench, deliver, fail):
        assert run(["storyboard", "make", "spring.toml"]) == 1

    said = capsys.readouterr().err
    assert "shot 2: bad_output: every frame is black" in said
    (board_id,) = set(re.findall("sb_[0-9a-f]+", said))
    assert f"vidmill storyboard replace {board_id} 2\n" in said
    assert run(["storyboard", "result", board_id, "--wait", "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["storyboard"]["state"]) == ("storyboard_failed", "failed")


def test_a_wait_that_was_too_short_or_for_what_was_cancelled_has_its_own_exit_code(
    server: Server, capsys: Captured
) -> None:
    del server
    Path("spring.toml").write_text(FILE)

    assert run(["storyboard", "make", "spring.toml", "--timeout", "0"]) == 5

    said = capsys.readouterr().err
    (board_id,) = set(re.findall("sb_[0-9a-f]+", said))
    assert f"vidmill storyboard result {board_id} --wait\n" in said
    assert run(["storyboard", "cancel", board_id]) == 0
    assert run(["storyboard", "result", board_id, "--wait"]) == 4


@pytest.mark.usefixtures("server")
def test_a_table_has_whole_ids_and_a_line_a_row_at_80_columns(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("spring.toml").write_text(FILE.replace("a red ball", "a red ball rolls in " * 5))
    assert run(["storyboard", "make", "spring.toml", "--no-wait", "--json"]) == 0
    doc = json.loads(capsys.readouterr().out)
    screen = Screen()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout", screen)

    assert run(["storyboard", "status", doc["storyboard_id"]]) == 0

    assert len(screen.lines) == 4
    assert max(map(len, screen.lines)) <= 80
    assert [line.split()[1] for line in screen.lines[-2:]] == [s["task_id"] for s in doc["shots"]]


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "shots:", "name it .toml or .json"),
        ("a.json", '{"shots": ["a", 5]}', "shots/1: it must be an object"),
        ("a.json", '{"shots": ["a", "b"], "crossfade": NaN}', "crossfade: nan is no number"),
        ("a.toml", 'shots = ["a", {prompt = 2026-01-01}]', "shots/1/prompt: 2026-01-01 is no text"),
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
