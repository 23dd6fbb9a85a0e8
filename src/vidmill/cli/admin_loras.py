"""`vidmill admin lora`: brand styles of a tenant, or of all."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidmill.cli.admin_shown import Name, instant, show, tenant_named
from vidmill.cli.options import Json, terminal
from vidmill.cli.output import CommandError, reported
from vidmill.cli.running import settings_of, starting
from vidmill.domain.errors import InvalidRequest, LoraConflict, LoraNotFound

if TYPE_CHECKING:
    from vidmill.domain.lora import Lora
    from vidmill.services.loras import Loras
    from vidmill.wiring import App

File = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, readable=True, show_default=False)
]
Tenant = Annotated[
    str, typer.Option(help="Whose it is; absent = shared by all tenants.", show_default=False)
]


def lora_add(
    context: typer.Context,
    name: Name,
    high: File,
    low: File,
    *,
    licence: Annotated[
        str, typer.Option(help="By what right it is used: 'CC-BY-4.0', 'own work'.")
    ],
    tenant: Tenant = "",
    trigger: Annotated[
        list[str] | None, typer.Option(help="A word it was trained with; may be repeated.")
    ] = None,
    strength: Annotated[float, typer.Option(help="Where a request names none.")] = 1.0,
    is_json: Json = False,
) -> None:
    """Check a pair of LoRA files, HIGH for the expert of high noise and LOW, and register it."""
    term = terminal(context, is_json=is_json)
    with reported(term), _register(tenant) as (loras, tenant_id):
        from vidmill.services.loras import WantedLora

        wanted = WantedLora(
            name=name, licence=licence, trigger_words=tuple(trigger or ()), strength=strength
        )
        try:
            lora = loras.add(tenant_id, wanted, {"high": high, "low": low})
        except InvalidRequest as error:
            wrong = [asdict(problem) for problem in error.problems]
            lines = [f"{problem.pointer[2:]}: {problem.message}" for problem in error.problems]
            raise CommandError("\n  ".join(["it was refused:", *lines]), errors=wrong) from error
        show(term, [_line(lora)])


def lora_list(context: typer.Context, *, tenant: Tenant = "", is_json: Json = False) -> None:
    """List what a tenant may use; without one, what is shared by all."""
    term = terminal(context, is_json=is_json)
    with reported(term), _register(tenant) as (loras, tenant_id):
        show(term, [_line(lora) for lora in loras.all(tenant_id)])


def lora_remove(context: typer.Context, name: Name, *, tenant: Tenant = "") -> None:
    """Delete a LoRA and its files; refused while tasks under way are drawn with it."""
    term = terminal(context, is_json=False)
    with reported(term), _register(tenant) as (loras, tenant_id):
        loras.delete(tenant_id, name)
        term.note(f"{name} is gone")


def lora_enable(context: typer.Context, name: Name, *, tenant: Tenant = "") -> None:
    """Put a LoRA on offer again."""
    _switch(context, name, tenant, is_enabled=True)


def lora_disable(context: typer.Context, name: Name, *, tenant: Tenant = "") -> None:
    """Take a LoRA off; what is queued with it is drawn all the same."""
    _switch(context, name, tenant, is_enabled=False)


def _switch(context: typer.Context, name: str, tenant: str, *, is_enabled: bool) -> None:
    term = terminal(context, is_json=False)
    with reported(term), _register(tenant) as (loras, tenant_id):
        loras.switch(tenant_id, name, is_enabled=is_enabled)
        term.note(f"{name} is {'on offer' if is_enabled else 'switched off'}")


@contextlib.contextmanager
def _register(tenant: str) -> "Iterator[tuple[Loras, int | None]]":
    """Give the register, and the number of *tenant*; empty = shared by all."""
    with _app() as app:
        from vidmill.wiring import loras_of

        tenant_id = app.db.read(lambda conn: tenant_named(conn, tenant)) if tenant else None
        try:
            yield loras_of(app), tenant_id
        except LoraConflict as error:
            raise CommandError(str(error)) from error
        except LoraNotFound as error:
            told = str(error).partition(";")[0]
            raise CommandError(f"{told}; {_whose(tenant)}") from error


def _whose(tenant: str) -> str:
    """Return where one of that name may be, as this command line says it."""
    if tenant:
        return (
            f"`vidmill admin lora list --tenant {tenant}` lists those of {tenant} and shared ones"
        )
    return "`vidmill admin lora list` lists those shared by all; for a tenant's own, add --tenant"


@contextlib.contextmanager
def _app() -> "Iterator[App]":
    settings = settings_of({})
    from vidmill import wiring

    with starting(settings):
        wiring.check_schema(settings)
        app = wiring.build(settings)
        try:
            yield app
        finally:
            app.close()


def _line(lora: "Lora") -> dict[str, Any]:
    return {
        "name": lora.name,
        "version": lora.version,
        "shared": lora.tenant_id is None,
        "enabled": lora.is_enabled,
        "strength": lora.strength,
        "trigger_words": list(lora.trigger_words),
        "rank": lora.rank,
        "fits": lora.architecture,
        "licence": lora.licence,
        "made": instant(lora.created_at),
    }
