import shutil
from pathlib import Path

import pytest

from tests.tiny_random import shared_tiny_random


@pytest.fixture(scope="session")
def sound_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A whole model folder; read it only."""
    return shared_tiny_random(tmp_path_factory, worker_id)


@pytest.fixture
def folder(sound_folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(sound_folder, tmp_path / "model")
