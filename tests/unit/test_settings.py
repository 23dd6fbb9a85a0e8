"""Settings that cannot be are refused at start, by name."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from vidmill.settings import Settings


def test_environment_variables_set_fields(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIDMILL_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("VIDMILL_FRAME_RATES", "[24, 60]")

    settings = Settings()

    assert settings.frame_rates == (24, 60)
    assert settings.effective_database_url == f"sqlite:///{tmp_path}/vidmill.db"
    assert settings.effective_storage_url == (tmp_path / "files").as_uri()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"duration_min_s": 11.0}, "VIDMILL_DURATION_MIN_S"),
        ({"default_frame_rate": 23}, "VIDMILL_DEFAULT_FRAME_RATE"),
        ({"lease_s": 6.0, "heartbeat_s": 5.0}, "VIDMILL_LEASE_S"),
        ({"device": "cuda:0-2"}, "VIDMILL_DEVICE"),
        ({"enhancer_url": "http://llm/v1"}, "VIDMILL_ENHANCER_MODEL"),
        ({"enhancer_url": "llm:8000", "enhancer_model": "m"}, "VIDMILL_ENHANCER_URL 'llm:8000'"),
    ],
)
def test_a_contradiction_is_refused_and_names_the_variable(
    values: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValidationError, match=named):
        Settings(**values)


def test_secrets_are_not_printed() -> None:
    assert "hunter2" not in repr(Settings(signing_secret=SecretStr("hunter2")))
