"""`vidmill admin plan` and `tenant`: what tenants may have, and who they are."""

from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidmill.cli.admin_shown import (
    Name,
    database,
    instant,
    show,
    show_read,
    show_written,
    tenant_named,
)
from vidmill.cli.options import Json, terminal
from vidmill.cli.output import reported

if TYPE_CHECKING:
    from vidmill.store import accounts
    from vidmill.store.session import Connection, UnitOfWork

LANES = ("vip", "standard", "batch")

NO_LIMIT = "none"
INT_MAX = 2**31 - 1
"""Of the column in PostgreSQL."""

Plan = Annotated[str | None, typer.Option(help="Its plan from now on.")]


def _limit(text: str) -> Any:
    return typer.Option(metavar=f"N|{NO_LIMIT}", help=text)


BestLane = Annotated[
    str | None, typer.Option(help="Best lane its tasks may take: vip, standard or batch.")
]
Pools = Annotated[list[str] | None, typer.Option(help="Pool of its tasks; the first named counts.")]
Share = Annotated[float | None, typer.Option(min=0.001, help="Share of GPU time.")]
Running = Annotated[int | None, typer.Option(min=0, help="Tasks at once.")]
Waiting = Annotated[int | None, typer.Option(min=0, help="Tasks that may wait.")]
CachedPrice = Annotated[
    int | None, typer.Option(min=0, max=100, help="Price of a clip from the cache.")
]
KeySubmits = Annotated[str | None, _limit("Requests a minute of one key that create or charge.")]
KeyReads = Annotated[str | None, _limit("All other requests a minute of one key.")]
TenantSubmits = Annotated[str | None, _limit("The same of all keys of a tenant.")]
TenantReads = Annotated[str | None, _limit("The same.")]
ClipsPerDay = Annotated[str | None, _limit("Clips that a tenant may order in a UTC day.")]


def plan_set(
    context: typer.Context,
    name: Name,
    *,
    lane: BestLane = None,
    pool: Pools = None,
    weight: Share = None,
    cap_running: Running = None,
    cap_queued: Waiting = None,
    cached_price_percent: CachedPrice = None,
    key_submits_per_min: KeySubmits = None,
    key_reads_per_min: KeyReads = None,
    tenant_submits_per_min: TenantSubmits = None,
    tenant_reads_per_min: TenantReads = None,
    clips_per_day: ClipsPerDay = None,
    is_json: Json = False,
) -> None:
    """Make a plan, or change what is named of one; `none` lifts a limit. It counts at once."""
    given = {
        "lane": _lane_of(lane),
        "pools": tuple(pool) if pool else None,
        "weight": weight,
        "cap_running": cap_running,
        "cap_queued": cap_queued,
        "cached_price_percent": cached_price_percent,
    }
    limits = {
        "key_submits_per_min": key_submits_per_min,
        "key_reads_per_min": key_reads_per_min,
        "tenant_submits_per_min": tenant_submits_per_min,
        "tenant_reads_per_min": tenant_reads_per_min,
        "clips_per_day": clips_per_day,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    changes |= {key: _limit_of(text) for key, text in limits.items() if text is not None}
    show_written(context, partial(_save_plan, name=name, changes=changes), is_json=is_json)


def plan_list(context: typer.Context, *, is_json: Json = False) -> None:
    """List the plans."""

    def read(conn: "Connection") -> list[dict[str, Any]]:
        from vidmill.store import accounts

        return [_plan_line(plan) for plan in accounts.all_plans(conn)]

    show_read(context, read, is_json=is_json)


def tenant_set(
    context: typer.Context, name: Name, *, plan: Plan = None, is_json: Json = False
) -> None:
    """Make a tenant, or give one another plan."""

    def save(uow: "UnitOfWork") -> dict[str, Any]:
        from vidmill.store import accounts

        accounts.ensure_tenant(uow, name, plan=plan)
        return next(line for line in _tenant_lines(uow.conn) if line["tenant"] == name)

    show_written(context, save, is_json=is_json)


def tenant_list(context: typer.Context, *, is_json: Json = False) -> None:
    """List the tenants, with what they have queued, paused rows included, and running."""
    show_read(context, _tenant_lines, is_json=is_json)


def tenant_show(context: typer.Context, name: Name, *, is_json: Json = False) -> None:
    """Show how a tenant's limits stand; what a minute holds is known to the servers alone."""
    term = terminal(context, is_json=is_json)
    with reported(term), database() as db:
        from vidmill.services.quota import Quota
        from vidmill.store import accounts

        def read(conn: "Connection") -> "tuple[int, accounts.Plan]":
            tenant_id = tenant_named(conn, name)
            return tenant_id, accounts.plan_of(conn, tenant_id)

        found = Quota(db).standings(*db.read(read))
        lines = [
            {
                "limit": standing.name,
                "most": standing.limit,
                "used": standing.used,
                "resets": instant(standing.resets_at),
            }
            for standing in found
        ]
        show(term, lines)


def _save_plan(uow: "UnitOfWork", *, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    from vidmill.store import accounts

    known = accounts.find_plan(uow.conn, name) or accounts.Plan(name=name)
    plan = replace(known, **changes)
    accounts.save_plan(uow, plan)
    return _plan_line(plan)


def _plan_line(plan: Any) -> dict[str, Any]:
    from vidmill.store.accounts import LIMITS

    shown = asdict(plan)
    limits = {name: shown.pop(name) for name in LIMITS}
    lane, pools = LANES[shown.pop("lane")], list(shown.pop("pools"))
    return {
        "plan": shown.pop("name"),
        "lane": lane,
        "pools": pools,
        **shown,
        "limits": {name: limit for name, limit in limits.items() if limit is not None},
    }


def _tenant_lines(conn: "Connection") -> list[dict[str, Any]]:
    from vidmill.store import accounts, jobs

    names = accounts.plan_names(conn)
    return [
        {
            "tenant": tenant.name,
            "plan": names[tenant.plan_id],
            "queued": jobs.num_waiting(conn, tenant.id),
            "running": tenant.running,
            "cap_queued": tenant.cap_queued,
            "cap_running": tenant.cap_running,
        }
        for tenant in accounts.all_tenants(conn)
    ]


def _limit_of(text: str) -> int | None:
    if text == NO_LIMIT:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > INT_MAX:
        raise typer.BadParameter(f"{text!r} is no limit; write a whole number, or {NO_LIMIT}")
    return int(text)


def _lane_of(text: str | None) -> Any:
    from vidmill.domain.job import Lane

    if text is None:
        return None
    if text not in LANES:
        raise typer.BadParameter(f"{text!r} is no lane; choose vip, standard or batch")
    return Lane(LANES.index(text))
