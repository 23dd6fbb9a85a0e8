"""`vidmill admin lora`: what it registers, and what it refuses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.databases import empty_database
from tests.loras import TINY, lora_tensors, make_pair, save
from tests.screens import Screen
from vidmill.cli.app import run

pytestmark = pytest.mark.sqlite  # what is tried here is the command line


@pytest.fixture(autouse=True)
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A migrated database that the environment names; the log is given back."""
    monkeypatch.setenv("VIDMILL_DATABASE_URL", empty_database(tmp_path))
    monkeypatch.setenv("VIDMILL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("VIDMILL_PROFILE", "tiny")
    monkeypatch.setenv("COLUMNS", "200")
    yield
    structlog.reset_defaults()


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    files = make_pair(tmp_path / "pair", 1, config=TINY)
    return [str(files.high), str(files.low)]


def printed(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    assert run(["admin", "lora", *command, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert run(["admin", "lora", *command]) != 0
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_pair_is_added_for_all_switched_off_and_removed(
    pair: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (made,) = printed(capsys, "add", "house", *pair, "--licence", "CC0", "--trigger", "house style")
    assert (made["name"], made["shared"], made["fits"]) == ("house", True, "wan-6x160x448")
    assert printed(capsys, "list") == [made]
    assert made["trigger_words"] == ["house style"]
    assert run(["admin", "lora", "disable", "house"]) == 0
    assert not printed(capsys, "list")[0]["enabled"]
    assert run(["admin", "lora", "enable", "house"]) == 0
    assert run(["admin", "lora", "remove", "house"]) == 0
    capsys.readouterr()
    assert printed(capsys, "list") == []


@pytest.mark.parametrize(("columns", "is_table"), [("80", False), ("200", True)])
def test_on_a_terminal_too_narrow_for_a_row_values_stand_one_below_the_other(
    pair: list[str],
    columns: str,
    *,
    is_table: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printed(capsys, "add", "house", *pair, "--licence", "CC0", "--trigger", "house style")
    screen = Screen()
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stdout", screen)
    assert run(["admin", "lora", "list"]) == 0
    lines = [" ".join(line.split()) for line in screen.lines]
    assert ("trigger words house style" in lines) is not is_table
    assert any(line.startswith("name version shared") for line in lines) is is_table


def test_a_tenants_lora_is_listed_with_the_shared_ones_for_it_alone(
    pair: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(["admin", "tenant", "set", "acme"])
    capsys.readouterr()
    printed(capsys, "add", "house", *pair, "--licence", "CC0")
    printed(capsys, "add", "own", *pair, "--licence", "own work", "--tenant", "acme")
    names = [line["name"] for line in printed(capsys, "list", "--tenant", "acme")]
    assert names == ["own", "house"]
    assert [line["name"] for line in printed(capsys, "list")] == ["house"]


def test_json_names_every_wrong_field(pair: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["admin", "lora", "add", "A", *pair, "--licence", "x", "--strength", "3", "--json"])
        == 2
    )
    wrong = json.loads(capsys.readouterr().out)["error"]["errors"]
    assert [one["pointer"] for one in wrong] == ["#/name", "#/strength"]


def test_what_cannot_be_is_refused_in_words(
    pair: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = str(save(tmp_path / "wrong.safetensors", lora_tensors(1)))
    said = refused(capsys, "add", "Acme", wrong, pair[1], "--licence", "x")
    assert "name: 'Acme' is no name" in said
    assert "high: '" in said
    printed(capsys, "add", "acme", *pair, "--licence", "x")
    assert "already" in refused(capsys, "add", "acme", *pair, "--licence", "x")
    assert "there is no LoRA 'nobody'" in refused(capsys, "remove", "nobody")
    assert "there is no tenant" in refused(capsys, "list", "--tenant", "nobody")
