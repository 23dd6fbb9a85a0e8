"""`vidmill models plan`: what it prints, and what it refuses."""

import json
from pathlib import Path

import pytest
import typer

from vidmill.cli.app import app


def run(*arguments: str) -> int:
    try:
        status = typer.main.get_command(app).main(
            ["models", *arguments], prog_name="vidmill", standalone_mode=False
        )
    except SystemExit as exit_:
        status = exit_.code
    except typer.Exit as exit_:
        status = exit_.exit_code
    return int(status or 0)


def test_each_profile_is_planned_with_bytes_per_part_and_a_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("plan", "--gpu-memory", "48") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "a14b-quality: fp8 on one GPU of 48 GB (45.6 usable), 1280x720 x 81 frames" in shown
    assert "resident 57.2 11.4 0.5 69.0 77.7 87.1 0.0 -41.5 too large" in shown
    assert "fp8 14.5 0.0 0.5 26.4 38.2 33.1 25.9 7.4 chosen" in shown
    assert "offload 0.0 0.0 0.5 11.9 11.1 18.6 68.5 27.0 fits" in shown
    assert "tiny" not in shown


def test_json_has_the_layout_and_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--gpu-memory", "80", "--profile", "a14b-quality", "--gpus", "4")
    assert run("plan", *asked, "--json") == 0
    (made,) = json.loads(capsys.readouterr().out)
    assert (made["layout"], made["gpus"], made["device_bytes"]) == ("parked", 4, 80 * 10**9)
    resident, parked, *_ = made["layouts"]
    assert (resident["fits"], parked["fits"]) == (False, True)
    assert resident["spare_bytes"] == made["usable_bytes"] - max(resident["peak_bytes"].values())
    assert parked["resting_bytes"]["text_encoder"] == 0


def test_a_card_that_holds_no_layout_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "--gpu-memory", "8", "--profile", "a14b-fast") == 1
    shown = capsys.readouterr().out
    assert "a14b-fast: none fits on one GPU of 8 GB" in shown
    assert "the smallest GPU that will do has 19.6 GB" in shown


@pytest.mark.parametrize("columns", ["40", "80"])
def test_nothing_is_cut_in_a_file_however_narrow_the_terminal(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    run("plan", "--gpu-memory", "141", "--profile", "a14b-quality")
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "encode  denoise  decode" in shown


@pytest.mark.parametrize("memory", ["141", "12"])
def test_its_table_fits_a_terminal_of_80_columns(
    memory: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("plan", "--gpu-memory", memory, "--gpus", "8")
    tables = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("GB.")]
    assert max(len(line.rstrip()) for line in tables) <= 80


def test_a_model_that_is_here_is_counted_from_its_files(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("plan", "--gpu-memory", "4", "--profile", "tiny") == 0
    assert "resident" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--gpu-memory", "80", "--gpus", "3"], "one of: 1, 2, 4, 8"),
        (["--gpu-memory", "85899345920"], "no size of a GPU; give GB"),
        (["--gpu-memory", "80", "--profile", "giant"], "no model profile 'giant'"),
        (["--gpu-memory", "80", "--profile", "tiny", "--path", "/nowhere"], "no folder /nowhere"),
    ],
)
def test_what_cannot_be_planned_is_said_with_the_remedy(
    capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert run("plan", *arguments) == 2
    assert reason in capsys.readouterr().err


def test_a_folder_that_is_no_model_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("plan", "--gpu-memory", "80", "--profile", "tiny", "--path", str(tmp_path)) == 2
    assert "transformer/config.json is missing" in capsys.readouterr().err
