import os
import subprocess
import sys
from pathlib import Path

import pytest

from vidmill.domain.errors import ModelInvalid
from vidmill.engines.hub import fetch_folder, local_folder
from vidmill.profiles import load_profile, resolve_source, revision_of

PINNED = "5be7df9619b54f4e2667b2755bc6a756675b5cd7"


def test_a_folder_is_where_it_says(tmp_path: Path) -> None:
    assert local_folder(str(tmp_path), "main") == tmp_path
    assert fetch_folder(str(tmp_path), "main") == tmp_path


def test_a_missing_folder_is_none_to_look_at_and_an_error_to_load(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    assert local_folder(gone, "main") is None
    with pytest.raises(ModelInvalid, match="VIDMILL_MODEL_PATH"):
        fetch_folder(gone, "main")


@pytest.mark.parametrize("revision", ["main", "abc123"])
def test_a_hub_id_is_found_in_the_cache_by_branch_or_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--Org--Name"
    snapshot = repo / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc123\n")
    assert local_folder("Org/Name", revision) == snapshot


@pytest.mark.parametrize(
    ("source", "expected"), [("Wan-AI/Wan2.2-T2V-A14B-Diffusers", PINNED), ("Org/Own", "main")]
)
def test_a_pinned_revision_is_that_of_the_profiles_own_source_alone(
    source: str, expected: str
) -> None:
    assert revision_of(load_profile("a14b-quality"), source) == expected


def test_the_shipped_weights_keep_their_number_wherever_they_lie() -> None:
    tiny = load_profile("tiny")
    assert revision_of(tiny, resolve_source(tiny)) == "1"


def fetch_offline(cache: Path) -> str:
    """Return what fetching `Org/Name` without a network prints."""
    code = (
        "from vidmill.engines.hub import fetch_folder\n"
        "try: print(fetch_folder('Org/Name', 'main'))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_fetched_hub_id_loads_without_a_network_and_another_does_not(tmp_path: Path) -> None:
    assert fetch_offline(tmp_path).startswith("ModelInvalid Org/Name is neither a folder nor")
    snapshot = tmp_path / "models--Org--Name" / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    refs = tmp_path / "models--Org--Name" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc123")
    assert fetch_offline(tmp_path) == str(snapshot)


def test_a_hub_id_that_was_never_fetched_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert local_folder("Org/Name", "main") is None
