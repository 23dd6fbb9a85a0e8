"""What `vidmill up` writes for SDK and CLI, and how its settings reach the worker."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vidmill import wiring
from vidmill.services.access import find_caller, hash_key
from vidmill.settings import Settings
from vidmill.stack import connect, settings_json
from vidmill.store import migrate


@pytest.fixture
def app(tmp_path: Path) -> Iterator[wiring.App]:
    settings = Settings.model_validate({"data_dir": tmp_path, "port": 0})
    migrate.upgrade(settings.effective_database_url)
    opened = wiring.build(settings)
    yield opened
    opened.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("0.0.0.0", 0)) as opened:
        yield opened


def test_connection_names_an_address_one_can_connect_to_and_a_key_that_works(
    app: wiring.App, listener: socket.socket
) -> None:
    made = connect(app, listener)
    path = app.settings.data_dir / "connection.json"
    assert json.loads(path.read_text()) == {"url": made.url, "api_key": made.api_key}
    assert made.url == f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert path.stat().st_mode & 0o777 == 0o600
    caller = find_caller(app.db, hash_key(made.api_key))
    assert caller is not None
    assert caller.tenant == "default"


def test_key_that_works_is_kept_at_the_next_start(app: wiring.App, listener: socket.socket) -> None:
    assert connect(app, listener).api_key == connect(app, listener).api_key


@pytest.mark.parametrize("damage", ["", "not json", "[]", "{}", '{"api_key": "vm_unknown"}'])
def test_key_that_is_unreadable_or_unknown_is_replaced(
    app: wiring.App, listener: socket.socket, damage: str
) -> None:
    path = app.settings.data_dir / "connection.json"
    path.write_text(damage)
    path.chmod(0o644)
    made = connect(app, listener)
    assert find_caller(app.db, hash_key(made.api_key)) is not None
    assert path.stat().st_mode & 0o777 == 0o600


def test_settings_reach_the_worker_whole_secrets_included(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"data_dir": tmp_path, "signing_secret": "hunter2", "frame_rates": [24], "lease_s": 7}
        | {"heartbeat_s": 2}
    )
    assert Settings.model_validate_json(settings_json(settings)) == settings
