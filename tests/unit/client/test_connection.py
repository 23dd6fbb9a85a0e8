"""Where the server is looked for, and in which order."""

import json
from pathlib import Path

import pytest

from vidmill.client import ConnectionNotFound, find_connection


def write(folder: Path, url: str, key: str = "k-file") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "connection.json"
    path.write_text(json.dumps({"url": url, "api_key": key}))
    return path


def test_arguments_win_over_everything(tmp_path: Path) -> None:
    write(tmp_path, "http://file:1")
    environ = {
        "VIDMILL_URL": "http://env:1",
        "VIDMILL_API_KEY": "k-env",
        "VIDMILL_DATA_DIR": str(tmp_path),
    }
    found = find_connection("http://arg:1/", "k-arg", environ=environ)
    assert (found.url, found.api_key) == ("http://arg:1", "k-arg")


def test_environment_wins_over_files(tmp_path: Path) -> None:
    write(tmp_path, "http://file:1")
    environ = {
        "VIDMILL_URL": "http://env:1",
        "VIDMILL_API_KEY": "k-env",
        "VIDMILL_DATA_DIR": str(tmp_path),
    }
    found = find_connection(environ=environ)
    assert (found.url, found.api_key, found.url_source) == ("http://env:1", "k-env", "VIDMILL_URL")


def test_data_dir_wins_over_xdg(tmp_path: Path) -> None:
    write(tmp_path / "data", "http://data:1")
    write(tmp_path / "xdg" / "vidmill", "http://xdg:1")
    environ = {"VIDMILL_DATA_DIR": str(tmp_path / "data"), "XDG_DATA_HOME": str(tmp_path / "xdg")}
    assert find_connection(environ=environ).url == "http://data:1"
    del environ["VIDMILL_DATA_DIR"]
    assert find_connection(environ=environ).url == "http://xdg:1"


def test_key_argument_wins_over_the_files_key(tmp_path: Path) -> None:
    write(tmp_path, "http://file:1")
    found = find_connection(None, "k-arg", environ={"VIDMILL_DATA_DIR": str(tmp_path)})
    assert (found.url, found.api_key) == ("http://file:1", "k-arg")


def test_url_of_the_file_needs_no_key_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "http://file:1")
    environ = {"VIDMILL_DATA_DIR": str(tmp_path)}
    assert find_connection("http://file:1", environ=environ).api_key == "k-file"


def test_key_of_one_server_is_never_sent_to_another(tmp_path: Path) -> None:
    write(tmp_path, "http://file:1")
    environ = {"VIDMILL_DATA_DIR": str(tmp_path)}
    assert find_connection("http://elsewhere:1", environ=environ).api_key == ""


def test_nothing_found_names_every_place_and_the_remedy(tmp_path: Path) -> None:
    environ = {"VIDMILL_DATA_DIR": str(tmp_path / "a"), "XDG_DATA_HOME": str(tmp_path / "b")}
    with pytest.raises(ConnectionNotFound) as caught:
        find_connection(environ=environ)
    message = str(caught.value)
    for part in ("VIDMILL_URL", str(tmp_path / "a"), str(tmp_path / "b"), "vidmill up"):
        assert part in message


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": "http://x"}', "null"])
def test_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "connection.json").write_text(text)
    with pytest.raises(ConnectionNotFound, match=r"connection\.json cannot be used"):
        find_connection(environ={"VIDMILL_DATA_DIR": str(tmp_path)})


def test_refreshed_follows_a_server_that_moved(tmp_path: Path) -> None:
    path = write(tmp_path, "http://file:1")
    found = find_connection(environ={"VIDMILL_DATA_DIR": str(tmp_path)})
    write(tmp_path, "http://file:2", "k-new")
    assert (found.refreshed().url, found.refreshed().api_key) == ("http://file:2", "k-new")
    path.write_text("{")
    assert found.refreshed() == found
    path.unlink()
    assert found.refreshed() == found


def test_key_is_not_in_the_repr(tmp_path: Path) -> None:
    write(tmp_path, "http://file:1", "top-secret")
    assert "top-secret" not in repr(find_connection(environ={"VIDMILL_DATA_DIR": str(tmp_path)}))
