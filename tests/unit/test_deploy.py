"""deploy/: every name in it is one that Vidmill knows, and no secret lies in it."""

import re
from pathlib import Path
from typing import Any

import typer.main
import yaml

from vidmill.cli.app import app
from vidmill.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"

OURS = ("serve-1", "serve-2", "worker", "migrate")


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def test_every_setting_in_it_exists() -> None:
    known = {f"VIDMILL_{name.upper()}" for name in Settings.model_fields}
    services = compose()["services"]
    named = {name for service in OURS for name in services[service]["environment"]}
    assert {name for name in named if name.startswith("VIDMILL_")} <= known


def test_every_command_in_it_is_one_of_the_cli() -> None:
    commands = typer.main.get_command(app)
    assert isinstance(commands, typer.core.TyperGroup)
    services = compose()["services"]
    assert {services[name]["command"][0] for name in OURS} <= set(commands.commands)
    documented = re.findall(r"vidmill admin (\w+) (\w+)", (DEPLOY / "compose.yaml").read_text())
    admin = commands.commands["admin"]
    assert isinstance(admin, typer.core.TyperGroup)
    for noun, verb in documented:
        group = admin.commands[noun]
        assert isinstance(group, typer.core.TyperGroup)
        assert verb in group.commands


def test_all_of_ours_share_database_broker_store_and_secret() -> None:
    services = compose()["services"]
    environments = [services[name]["environment"] for name in OURS]
    assert all(environment == environments[0] for environment in environments)


def test_services_wait_for_others_that_exist() -> None:
    services = compose()["services"]
    awaited = {name for service in services.values() for name in service.get("depends_on", {})}
    assert awaited <= set(services)
    checked = {
        name
        for service in services.values()
        for name, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_healthy"
    }
    assert {name for name in checked if "healthcheck" not in services[name]} == set()


def test_every_secret_must_be_given_and_none_is_kept() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    for name in ("POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "VIDMILL_SIGNING_SECRET"):
        assert set(re.findall(rf"\$\{{{name}(..)", text)) == {":?"}  # compose stops without it
        assert f"\n{name}=\n" in (DEPLOY / ".env.example").read_text()


def test_proxy_knows_the_replicas_and_buffers_nothing() -> None:
    text = (DEPLOY / "Caddyfile").read_text()
    assert "reverse_proxy serve-1:8600 serve-2:8600" in text
    assert "flush_interval -1" in text
