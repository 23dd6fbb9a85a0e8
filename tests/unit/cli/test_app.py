"""The command line from outside: start-up, exit codes, what goes where."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from vidmill import client
from vidmill.cli.app import app
from vidmill.cli.output import Exit

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "numpy", "av", "fastapi", "sqlalchemy", "uvicorn", "structlog", "httpx2")
SERVER_ONLY = (
    *HEAVY[:-1],
    "pydantic_settings",
    "obstore",
    "diffusers",
    "transformers",
    "PIL",
    "cv2",
)


def vidmill(*arguments: str, home: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run the real command, without any server configured but what *environ* says."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VIDMILL_", "XDG_"))}
    return subprocess.run(
        [sys.executable, "-m", "vidmill", *arguments],
        env={**kept, "HOME": str(home), "NO_COLOR": "1", "COLUMNS": "200", **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_imports_neither_sdk_nor_server_nor_torch() -> None:
    code = (
        "import sys\nfrom vidmill.cli.app import run\ncode = run(['--help'])\n"
        f"heavy = [m for m in sys.modules if m.split('.')[0] in {HEAVY!r}]\n"
        "print(code, heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "0 []"
    for command in ("generate", "status", "result", "cancel", "list", "batch", "models", "doctor"):
        assert command in done.stdout
    assert "demo" not in done.stdout


def test_user_commands_need_no_server_package(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "class BaseInstall(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {SERVER_ONLY!r}:\n"
        "            return None\n"
        "        return super().find_spec(name, path, target)\n"
        "sys.meta_path[sys.meta_path.index(PathFinder)] = BaseInstall\n"
        "from vidmill.cli.app import run\n"
        "codes = [run(['config', 'show']), run(['models']), run(['doctor']), run(['up'])]\n"
        "print([int(code) for code in codes], file=sys.stderr)"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("VIDMILL_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environ, "HOME": str(tmp_path), "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == "[0, 0, 0, 2]", done.stderr
    assert "pip install '.[worker]'" in done.stderr
    assert "pip install '.[server]'" in done.stdout


def test_no_server_exits_3_and_says_where_it_looked(tmp_path: Path) -> None:
    done = vidmill("list", home=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert str(tmp_path / ".local" / "share" / "vidmill") in done.stderr
    assert "vidmill up" in done.stderr


def test_dead_server_exits_3_within_seconds(tmp_path: Path) -> None:
    done = vidmill("--url", "http://127.0.0.1:9", "list", home=tmp_path)
    assert done.returncode == 3
    assert "http://127.0.0.1:9" in done.stderr


def test_json_errors_are_one_document_on_stdout(tmp_path: Path) -> None:
    done = vidmill("status", "t2v_1", "--json", home=tmp_path)
    assert json.loads(done.stdout)["error"]["code"] == "connection_not_found"
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.parametrize(
    "arguments", [["bogus"], ["generate"], ["list", "--status", "bogus"], ["list", "-n", "x"]]
)
def test_wrong_usage_exits_2(tmp_path: Path, arguments: list[str]) -> None:
    done = vidmill(*arguments, home=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"mine")
    arguments = ["generate", "x", "-o", str(path)]
    done = vidmill(*arguments, home=tmp_path, VIDMILL_URL="http://127.0.0.1:9")
    assert (done.returncode, path.read_bytes()) == (2, b"mine")
    assert "--force" in done.stderr


def test_config_show_hides_secrets(tmp_path: Path) -> None:
    done = vidmill(
        "config",
        "show",
        "--json",
        home=tmp_path,
        VIDMILL_URL="http://u:pw-in-url@h:1",
        VIDMILL_API_KEY="key-secret",
        VIDMILL_SIGNING_SECRET="sign-secret",
        VIDMILL_DATABASE_URL="postgresql://u:pw-in-url@h/db",
    )
    values = json.loads(done.stdout)
    server = {row["name"]: row for row in values["server"]}
    assert server["database_url"]["source"] == "VIDMILL_DATABASE_URL"
    assert server["port"]["source"] == "default"
    for secret in ("pw-in-url", "key-secret", "sign-secret"):
        assert secret not in done.stdout


def test_wrong_settings_are_named_without_a_traceback(tmp_path: Path) -> None:
    done = vidmill("up", home=tmp_path, VIDMILL_HEARTBEAT_S="99")
    assert done.returncode == 2
    assert "VIDMILL_LEASE_S" in done.stderr
    assert "Traceback" not in done.stderr
    for command in (["config", "show"], ["doctor"]):
        shown = vidmill(*command, home=tmp_path, VIDMILL_HEARTBEAT_S="99")
        assert "VIDMILL_LEASE_S" in shown.stdout, shown.stderr


def test_models_checks_a_given_folder(tmp_path: Path) -> None:
    done = vidmill("models", "--path", str(tmp_path), "--json", home=tmp_path)
    (model,) = json.loads(done.stdout)
    assert (done.returncode, model["is_installed"]) == (1, False)
    assert any(finding["severity"] == "error" for finding in model["findings"])


def test_models_finds_the_shipped_model_whole(tmp_path: Path) -> None:
    done = vidmill("models", "--json", home=tmp_path)
    tiny = next(model for model in json.loads(done.stdout) if model["name"] == "tiny")
    assert (done.returncode, tiny["is_installed"], tiny["findings"]) == (0, True, [])


def test_doctor_names_what_is_missing_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "data" / "connection.json"
    path.parent.mkdir()
    path.write_text('{"url": "http://127.0.0.1:9", "api_key": "k"}')
    path.chmod(0o644)
    done = vidmill("doctor", "--json", home=tmp_path, VIDMILL_DATA_DIR=str(path.parent))
    found = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 1
    assert found["server"]["state"] == "fail"
    assert found["key file"]["remedy"] == f"chmod 600 {path}"
    assert found["codec"]["state"] == found["model"]["state"] == "ok"


def test_pages_name_every_command_exit_code_and_error() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for command in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert f"`{command}" in page or command == "demo", command
    for code in Exit:
        assert f"| {int(code)} |" in page, code
    errors = (ROOT / "docs" / "sdk.md").read_text(encoding="utf-8")
    for name in client.__all__:
        kind = getattr(client, name)
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert name in errors, name
