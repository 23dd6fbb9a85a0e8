"""The command line against the real API, in this process; the worker is played by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.desks import KEY
from tests.screens import Screen
from tests.servers import CONTENTS, Server, deliver, fail, working
from vidmill.cli.app import run
from vidmill.client import Vidmill

pytestmark = pytest.mark.sqlite
"""What is tried here is a client; `tests/service/store` and others try both databases."""


@pytest.fixture
def server(named_server: Server) -> Server:
    return named_server


Captured = pytest.CaptureFixture[str]


def document(capsys: Captured) -> Any:
    """Return the one document on stdout."""
    return json.loads(capsys.readouterr().out)


def test_generate_saves_the_clip_and_says_so_in_a_line(
    server: Server, tmp_path: Path, capsys: Captured
) -> None:
    with working(server.bench, deliver):
        assert run(["generate", "a red ball", "-o", "clip.mp4", "--duration", "3"]) == 0
    assert (tmp_path / "clip.mp4").read_bytes() == CONTENTS["video"]
    said = capsys.readouterr()
    assert said.out.startswith("clip.mp4  832x480, 3 s, 0.30 MB, seed 7, made in")
    assert "a red ball: completed, done" in said.err


def test_generate_without_a_name_takes_the_task_id(
    server: Server, tmp_path: Path, capsys: Captured
) -> None:
    with working(server.bench, deliver):
        assert run(["generate", "a red ball", "--json"]) == 0
    facts = document(capsys)
    assert (tmp_path / f"{facts['task_id']}.mp4").exists()
    assert facts["size_bytes"] == len(CONTENTS["video"])


def test_the_shape_of_the_picture_can_be_chosen(server: Server, vidmill: Vidmill) -> None:
    assert run(["generate", "a red ball", "--aspect-ratio", "9:16", "--no-wait"]) == 0
    assert [task.aspect_ratio for task in vidmill.tasks()] == ["9:16"]


def test_failed_clip_exits_1_with_the_task_in_the_error(server: Server, capsys: Captured) -> None:
    with working(server.bench, fail):
        assert run(["generate", "a red ball", "--json"]) == 1
    error = document(capsys)["error"]
    assert (error["code"], error["task"]["error"]["code"]) == ("task_failed", "bad_output")


@pytest.mark.usefixtures("server")
def test_wait_that_is_too_short_exits_5(capsys: Captured) -> None:
    assert run(["generate", "a red ball", "--timeout", "0.1"]) == 5
    assert "it goes on" in capsys.readouterr().err


def test_life_of_a_task_in_five_commands(
    server: Server, vidmill: Vidmill, capsys: Captured, tmp_path: Path
) -> None:
    assert run(["generate", "a red ball", "--no-wait"]) == 0
    task_id = capsys.readouterr().out.split()[0]
    assert run(["list"]) == 0
    assert task_id in capsys.readouterr().out
    assert run(["result", task_id]) == 1  # not finished
    assert run(["cancel", task_id]) == 0
    assert "cancelled" in capsys.readouterr().out
    assert run(["status", task_id, "--json"]) == 0
    assert document(capsys)["status"] == "cancelled"
    assert run(["result", task_id]) == 4
    with working(server.bench, deliver):
        other = vidmill.submit("a blue ball")
        assert run(["result", other.task_id, "--wait", "--variant", "poster"]) == 0
    assert (tmp_path / f"{other.task_id}.jpg").read_bytes() == CONTENTS["poster"]
    assert run(["cancel", other.task_id]) == 1
    capsys.readouterr()
    assert run(["list", "--status", "completed", "--json"]) == 0
    assert [task["task_id"] for task in document(capsys)] == [other.task_id]


def test_a_clip_is_explained_within_80_columns(
    server: Server, vidmill: Vidmill, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = "a red [ball] " + "rolls over the meadow " * 8
    with working(server.bench, deliver):
        task_id = vidmill.generate(prompt, seed=7).task_id
    assert run(["explain", task_id, "--json"]) == 0
    found = document(capsys)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout", screen := Screen())

    assert run(["explain", task_id]) == 0

    said = " ".join(" ".join(screen.lines).split())
    for told in (task_id, prompt.strip(), found["prompt"]["used"], f"{found['steps']} steps"):
        assert told in said
    assert "run 1 succeeded" in said
    assert max(map(len, screen.lines)) <= 80


@pytest.mark.usefixtures("server")
def test_a_task_is_searched_for_retried_and_deleted(capsys: Captured) -> None:
    assert run(["generate", "a red ball", "--no-wait"]) == 0
    task_id = capsys.readouterr().out.split()[0]
    assert run(["cancel", task_id]) == 0
    assert run(["retry", task_id, "--json"]) == 0
    capsys.readouterr()
    assert run(["list", "--search", "red ball", "--json"]) == 0
    tasks = document(capsys)
    assert [task["parent_task_id"] for task in tasks] == [task_id, None]
    assert run(["delete", task_id]) == 0
    assert "deleted" in capsys.readouterr().out
    assert run(["status", task_id]) == 1
    capsys.readouterr()
    assert run(["list", "--search", "blue", "--json"]) == 0
    assert document(capsys) == []


@pytest.mark.usefixtures("server")
def test_refused_request_names_each_field_on_a_line(capsys: Captured) -> None:
    assert run(["generate", " ", "--duration", "99"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: the request was refused:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["prompt", "duration"]


def test_campaign_with_a_failed_row_exits_1_and_a_second_run_mends_it(
    server: Server, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "c.csv").write_text("prompt,name\na red ball,one\na blue ball,two\n")
    command = ["batch", "run", "c.csv", "-o", "clips"]
    with working(server.bench, deliver, fail):
        assert run(command) == 1
    said = capsys.readouterr()
    assert "1 of 2 clips" in said.out
    assert "every frame is black" in said.out
    first = json.loads((tmp_path / "clips" / "manifest.json").read_text())
    assert first["counts"] == {"completed": 1, "failed": 1}

    with working(server.bench, deliver):
        assert run([*command, "--json"]) == 0
    second = document(capsys)
    assert second["rows"][0] == first["rows"][0]
    assert second["rows"][1]["task_id"] != first["rows"][1]["task_id"]
    for name in ("one", "two"):
        assert (tmp_path / "clips" / f"{name}.mp4").read_bytes() == CONTENTS["video"]
        assert (tmp_path / "clips" / f"{name}.jpg").read_bytes() == CONTENTS["poster"]


def test_task_that_the_server_no_longer_has_is_made_anew(
    server: Server, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "c.csv").write_text("prompt,name\na red ball,one\n")
    with working(server.bench, deliver):
        assert run(["batch", "run", "c.csv", "-o", "clips", "--no-poster", "--json"]) == 0
    manifest = document(capsys)
    manifest["rows"][0] |= {"status": "queued", "file": None, "task_id": "t2v_gone"}
    (tmp_path / "clips" / "manifest.json").write_text(json.dumps(manifest))
    with working(server.bench, deliver):
        assert (
            run(["batch", "run", "c.csv", "-o", "clips", "--no-poster", "--no-cache", "--json"])
            == 0
        )
    assert document(capsys)["rows"][0]["task_id"] not in {"t2v_gone", None}
    assert not list((tmp_path / "clips").glob("*.jpg"))


@pytest.mark.usefixtures("server")
def test_campaign_is_checked_without_sending_anything(
    tmp_path: Path, capsys: Captured, vidmill: Vidmill
) -> None:
    (tmp_path / "good.csv").write_text("prompt\na red ball\n")
    (tmp_path / "bad.csv").write_text("prompt,duration\na red ball,99\n,3\n")
    assert run(["batch", "check", "good.csv"]) == 0
    assert run(["batch", "check", "good.csv", "--json"]) == 0
    assert run(["batch", "check", "nowhere.csv"]) == 2
    capsys.readouterr()
    assert run(["batch", "run", "bad.csv", "--json"]) == 2
    problems = document(capsys)["error"]["problems"]
    assert [(p["line"], p["column"]) for p in problems] == [(2, "duration"), (3, "prompt")]
    assert list(vidmill.tasks()) == []


@pytest.mark.usefixtures("server")
def test_folder_with_a_foreign_manifest_is_refused(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "c.csv").write_text("prompt\na red ball\n")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "manifest.json").write_text("not ours")
    assert run(["batch", "run", "c.csv", "-o", "clips"]) == 2
    assert "choose another folder" in capsys.readouterr().err


@pytest.mark.usefixtures("server")
def test_doctor_says_that_no_worker_is_there_yet(capsys: Captured) -> None:
    assert run(["doctor", "--json"]) == 0
    found = {finding["name"]: finding for finding in document(capsys)}
    assert (found["server"]["state"], found["api key"]["state"]) == ("warn", "ok")
    assert "worker" in found["server"]["detail"]
    assert run(["doctor"]) == 0
    assert "-> wait for the model to load" in capsys.readouterr().out


@pytest.mark.usefixtures("server")
def test_wrong_key_exits_3_and_doctor_fails(capsys: Captured) -> None:
    assert run(["--api-key", "wrong", "list"]) == 3
    assert run(["--api-key", "wrong", "doctor"]) == 1
    assert "API key" in capsys.readouterr().out


@pytest.mark.usefixtures("server")
def test_settings_and_models_are_shown_to_people(capsys: Captured) -> None:
    assert run(["config", "show"]) == 0
    shown = capsys.readouterr().out
    assert "VIDMILL_URL" in shown
    assert KEY not in shown
    assert run(["models"]) == 0
    assert "a14b-quality" in capsys.readouterr().out
    assert run(["models", "--path", ".", "--profile", "tiny"]) == 1
    assert run(["models", "--path", ".", "--profile", "nonsense"]) == 2
    assert run(["version"]) == 0


@pytest.mark.usefixtures("server")
def test_a_profile_whose_clips_a_server_draws_needs_its_address_and_no_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def model_of_doctor() -> dict[str, str]:
        run(["doctor", "--json"])
        (found,) = [finding for finding in document(capsys) if finding["name"] == "model"]
        return dict(found)

    monkeypatch.setenv("VIDMILL_PROFILE", "remote-openai")
    found = model_of_doctor()
    assert (found["state"], "VIDMILL_REMOTE_URL" in found["remedy"]) == ("fail", True)
    monkeypatch.setenv("VIDMILL_REMOTE_URL", "http://user:hidden@gpu7:8000/v1")
    found = model_of_doctor()
    assert (found["state"], found["detail"]) == ("ok", "remote-openai is drawn by the server gpu7")
    assert run(["models"]) == 0
    assert "remote-openai" in capsys.readouterr().out
    assert run(["models", "plan", "--profile", "remote-openai", "--gpu-memory", "80"]) == 2
