"""`vidmill admin`: plans, tenants, keys, LoRAs and routes, written straight into the database."""

from collections.abc import Callable, Mapping

import typer

from vidmill.cli.admin_accounts import plan_list, plan_set, tenant_list, tenant_set, tenant_show
from vidmill.cli.admin_keys import key_create, key_list, key_revoke
from vidmill.cli.admin_loras import (
    lora_add,
    lora_disable,
    lora_enable,
    lora_list,
    lora_remove,
)
from vidmill.cli.admin_routes import route_list, route_set

COMMANDS: Mapping[str, tuple[Callable[..., None], ...]] = {
    "plan": (plan_set, plan_list),
    "tenant": (tenant_set, tenant_list, tenant_show),
    "key": (key_create, key_list, key_revoke),
    "lora": (lora_add, lora_list, lora_remove, lora_enable, lora_disable),
    "route": (route_set, route_list),
}
"""The functions are named `<noun>_<verb>`."""

_PLURALS = {"lora": "LoRAs"}


def register(app: typer.Typer) -> None:
    admin = typer.Typer(
        help="Plans, tenants, keys, LoRAs and routes of a cluster.", no_args_is_help=True
    )
    for noun, commands in COMMANDS.items():
        group = typer.Typer(
            help=f"{_PLURALS.get(noun, noun.capitalize() + 's')}.", no_args_is_help=True
        )
        for command in commands:
            group.command(command.__name__.partition("_")[2])(command)
        admin.add_typer(group, name=noun)
    app.add_typer(admin, name="admin", rich_help_panel="A cluster")
