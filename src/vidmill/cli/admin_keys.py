"""`vidmill admin key`: API keys of any tenant."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidmill.cli.admin_shown import Name, database, instant, show_read, tenant_named
from vidmill.cli.options import Json, terminal
from vidmill.cli.output import CommandError, reported

if TYPE_CHECKING:
    from vidmill.services.keys import OwnedKey
    from vidmill.store.session import Connection, UnitOfWork

SCOPES = ("read", "submit", "admin")


def key_create(
    context: typer.Context,
    tenant: Name,
    *,
    name: Annotated[str, typer.Option(help="What it is for.")] = "made by vidmill admin",
    user: Annotated[str, typer.Option(help="Whose key it is; made if new.")] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do: read, submit or admin; none named = all."),
    ] = None,
    expires_days: Annotated[
        float | None, typer.Option(min=0.001, help="Days it works; absent = for ever.")
    ] = None,
    is_json: Json = False,
) -> None:
    """Make an API key and show it, once: only its hash is kept."""
    if unknown := set(scope or ()) - set(SCOPES):
        raise typer.BadParameter(
            f"{min(unknown)!r} is no scope; choose {', '.join(SCOPES)}", param_hint="--scope"
        )
    term = terminal(context, is_json=is_json)
    with reported(term), database() as db:
        from vidmill.domain.permission import Scope
        from vidmill.services.keys import WantedKey, make_key

        wanted = WantedKey(
            name=name,
            user=user,
            scopes=frozenset(map(Scope, scope or SCOPES)),
            expires_in_days=expires_days,
        )

        def save(uow: "UnitOfWork") -> "tuple[OwnedKey, str]":
            return make_key(uow, tenant_named(uow.conn, tenant), wanted)

        owned, key = db.write(save)
        line = _line(owned)
        if is_json:
            term.document({**line, "tenant": tenant, "api_key": key})
        else:
            term.out.print(key, markup=False, soft_wrap=True)
            term.note(f"{line['id']} of {tenant}; it is shown only now")


def key_list(context: typer.Context, tenant: Name, *, is_json: Json = False) -> None:
    """List a tenant's keys; the keys themselves are kept nowhere."""

    def read(conn: "Connection") -> list[dict[str, Any]]:
        from vidmill.services.keys import keys_of

        return [_line(owned) for owned in keys_of(conn, tenant_named(conn, tenant))]

    show_read(context, read, is_json=is_json)


def key_revoke(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="Its id in `key list`.", show_default=False)],
) -> None:
    """Take a key out of use; servers may know it for five seconds more."""
    term = terminal(context, is_json=False)
    with reported(term), database() as db:
        from vidmill.domain.api_key import id_named
        from vidmill.store import accounts

        key_id = id_named(key)
        if key_id is None or not db.write(lambda uow: accounts.revoke_key(uow, key_id)):
            raise CommandError(f"there is no key {key}; see `vidmill admin key list TENANT`")
        term.note(f"{key} is out of use")


def _line(owned: "OwnedKey") -> dict[str, Any]:
    from vidmill.domain.api_key import public_name

    key = owned.key
    return {
        "id": public_name(key.id),
        "name": key.name,
        "hint": key.grant.hint,
        "user": owned.user,
        "scopes": [name for name in SCOPES if name in key.grant.scopes],
        "made": instant(key.created_at),
        "expires": instant(key.grant.expires_at),
        "used": instant(key.last_used_at),
    }
