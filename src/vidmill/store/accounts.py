"""Plans, tenants, their users and API keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, bindparam, func, select, text

from vidmill.domain.job import Lane
from vidmill.domain.permission import ALL_SCOPES, Scope
from vidmill.store.account_tables import api_keys, plans, tenants, users
from vidmill.store.unit import UnitOfWork

DEFAULT = "default"
"""Name of the plan and of the user that are there without anybody's doing."""

CAP_DEFAULT = 10_000
"""Running and queued jobs of a tenant where nothing else is said."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a tenant may have.

    Attributes:
        lane: The best lane its jobs may take.
        pools: Where they go; the first counts, none = the operator's `VIDMILL_POOL`.
        weight: Share of GPU time against other tenants of the same lane.
        cap_running: Jobs that may run at once.
        cap_queued: Jobs that may be queued; beyond, submitting is refused.
        cached_price_percent: Of the price, for a clip that needed no run of its own.
        key_submits_per_min: Requests of one key that create or charge; None = no limit, as below.
        key_reads_per_min: All other requests of one key.
        tenant_submits_per_min: The same of all the tenant's keys together.
        tenant_reads_per_min: The same.
        clips_per_day: Jobs of one UTC day; those that failed, never ran, or came from the cache
            do not count.
    """

    name: str
    lane: Lane = Lane.STANDARD
    pools: tuple[str, ...] = ()
    weight: float = 1.0
    cap_running: int = CAP_DEFAULT
    cap_queued: int = CAP_DEFAULT
    cached_price_percent: int = 0
    key_submits_per_min: int | None = None
    key_reads_per_min: int | None = None
    tenant_submits_per_min: int | None = None
    tenant_reads_per_min: int | None = None
    clips_per_day: int | None = None


LIMITS = (
    "key_submits_per_min",
    "key_reads_per_min",
    "tenant_submits_per_min",
    "tenant_reads_per_min",
    "clips_per_day",
)
"""Fields of a plan that may be None: no limit."""


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """Whose jobs they are. The weight, the caps and the clips a day are its plan's."""

    id: int
    name: str
    plan_id: int
    weight: float
    cap_running: int
    cap_queued: int
    queued: int
    running: int
    created_at: float
    clips_per_day: int | None


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody of a tenant; `weight` is the share against the tenant's other users."""

    id: int
    tenant_id: int
    name: str
    weight: float
    created_at: float


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What a key may do and until when; `hint` is how its owner tells it from his others."""

    scopes: frozenset[Scope] = ALL_SCOPES
    expires_at: float | None = None
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key, as far as it is kept. `last_used_at` is a minute off at most."""

    id: int
    tenant_id: int
    name: str
    key_hash: str
    created_at: float
    user_id: int
    grant: Grant
    last_used_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class CallerRows:
    """All that an API key stands for."""

    key: ApiKey
    tenant: Tenant
    user: User
    plan: Plan


_PLAN_OF_TENANTS = text("""
    UPDATE tenants SET weight = :weight, cap_running = :cap_running, cap_queued = :cap_queued,
         clips_per_day = :clips_per_day WHERE plan_id = :plan""")
_ENSURE = text("""
    INSERT INTO tenants
           (name, plan_id, weight, cap_running, cap_queued, clips_per_day, created_at)
         VALUES (:name, :plan, :weight, :cap_running, :cap_queued, :clips_per_day, :now)
    ON CONFLICT (name) DO UPDATE SET plan_id = excluded.plan_id, weight = excluded.weight,
         cap_running = excluded.cap_running, cap_queued = excluded.cap_queued,
         clips_per_day = excluded.clips_per_day""")
_ENSURE_USER = text("""
    INSERT INTO users (tenant_id, name, weight, created_at)
         VALUES (:tenant, :name, :weight, :now)
    ON CONFLICT (tenant_id, name) DO UPDATE SET weight = excluded.weight""")
_KEY = select(api_keys).where(api_keys.c.key_hash == bindparam("key_hash"))
_TENANT = select(tenants).where(tenants.c.id == bindparam("tenant"))


def _label(column: Any) -> str:
    return f"{column.table.name}_{column.name}"


_OWNERS = [*api_keys.columns, *tenants.columns, *users.columns, *plans.columns]
_CALLER = (
    select(*(column.label(_label(column)) for column in _OWNERS))
    .join(tenants, tenants.c.id == api_keys.c.tenant_id)
    .join(users, users.c.id == api_keys.c.user_id)
    .join(plans, plans.c.id == tenants.c.plan_id)
    .where(api_keys.c.key_hash == bindparam("key_hash"))
)


def save_plan(uow: UnitOfWork, plan: Plan) -> int:
    """Keep *plan* under its name, for its tenants too, from now on; return its id."""
    values = {**vars(plan), "pools": list(plan.pools)}
    known = uow.conn.execute(select(plans.c.id).where(plans.c.name == plan.name)).scalar()
    if known is None:
        new = {**values, "created_at": uow.now}
        return int(uow.conn.execute(plans.insert().returning(plans.c.id), new).scalar_one())
    uow.conn.execute(plans.update().where(plans.c.id == known), values)
    uow.conn.execute(_PLAN_OF_TENANTS, {**_limits(plan), "plan": known})
    return int(known)


def all_plans(conn: Connection) -> list[Plan]:
    return [_plan(row._mapping) for row in conn.execute(select(plans).order_by(plans.c.name))]  # noqa: SLF001  a row's names


def find_plan(conn: Connection, name: str) -> Plan | None:
    row = conn.execute(select(plans).where(plans.c.name == name)).first()
    return None if row is None else _plan(row._mapping)  # noqa: SLF001  a row's names


def plan_of(conn: Connection, tenant_id: int) -> Plan:
    """Return the plan of a tenant there is."""
    query = select(plans).join(tenants, tenants.c.plan_id == plans.c.id)
    return _plan(conn.execute(query.where(tenants.c.id == tenant_id)).mappings().one())


def plan_names(conn: Connection) -> dict[int, str]:
    """Return the name of each plan by its id."""
    return {row.id: row.name for row in conn.execute(select(plans.c.id, plans.c.name))}


def ensure_tenant(
    uow: UnitOfWork,
    name: str,
    *,
    plan: str | None = None,
    weight: float | None = None,
    cap_running: int | None = None,
    cap_queued: int | None = None,
) -> Tenant:
    """Return the tenant called *name*, made now if there is none, with its user `default`.

    It has *plan* from now on; None = the one it has, `default` for a new one. *weight* and caps
    replace the plan's until the plan is saved again.

    Raises:
        LookupError: There is no such plan.
    """
    found = uow.conn.execute(select(tenants).where(tenants.c.name == name)).first()
    if found is None or plan is not None:
        row = _plan_row(uow.conn, plan or DEFAULT)
        limits, plan_id = _limits(row), row.id
    else:
        limits, plan_id = _limits(found), found.plan_id
    given = {"weight": weight, "cap_running": cap_running, "cap_queued": cap_queued}
    limits |= {key: value for key, value in given.items() if value is not None}
    uow.conn.execute(_ENSURE, {"name": name, "plan": plan_id, "now": uow.now, **limits})
    tenant = _tenant(uow.conn.execute(select(tenants).where(tenants.c.name == name)).one())
    if found is None:
        ensure_user(uow, tenant.id, DEFAULT)
    return tenant


def get_tenant(conn: Connection, tenant_id: int) -> Tenant | None:
    row = conn.execute(_TENANT, {"tenant": tenant_id}).first()
    return None if row is None else _tenant(row)


def all_tenants(conn: Connection) -> list[Tenant]:
    return [_tenant(row) for row in conn.execute(select(tenants).order_by(tenants.c.name))]


def ensure_user(uow: UnitOfWork, tenant_id: int, name: str, weight: float = 1.0) -> User:
    """Return the tenant's user called *name* with this weight, made now if there is none."""
    values = {"tenant": tenant_id, "name": name, "weight": weight, "now": uow.now}
    uow.conn.execute(_ENSURE_USER, values)
    user = find_user(uow.conn, tenant_id, name)
    assert user is not None, "it was made or found just now"
    return user


def find_user(conn: Connection, tenant_id: int, name: str) -> User | None:
    query = select(users).where(users.c.tenant_id == tenant_id, users.c.name == name)
    row = conn.execute(query).first()
    return None if row is None else _user(row)


def user_names(conn: Connection, tenant_id: int) -> dict[int, str]:
    """Return the name of each of the tenant's users by its id."""
    query = select(users.c.id, users.c.name).where(users.c.tenant_id == tenant_id)
    return {row.id: row.name for row in conn.execute(query)}


_ALL = Grant()


def create_key(
    uow: UnitOfWork,
    tenant_id: int,
    name: str,
    key_hash: str,
    user_id: int | None = None,
    *,
    grant: Grant = _ALL,
) -> ApiKey:
    """Keep a key by its hash alone, the key itself is never stored; None = the user `default`."""
    owner = _default_user(uow.conn, tenant_id) if user_id is None else user_id
    values = {"tenant_id": tenant_id, "name": name, "key_hash": key_hash, "created_at": uow.now}
    granted = {**vars(grant), "scopes": sorted(grant.scopes)}
    query = api_keys.insert().returning(*api_keys.c)
    return _key(uow.conn.execute(query, {**values, **granted, "user_id": owner}).one()._mapping)  # noqa: SLF001  a row's names


def find_key(conn: Connection, key_hash: str) -> ApiKey | None:
    row = conn.execute(_KEY, {"key_hash": key_hash}).mappings().first()
    return None if row is None else _key(row)


def all_keys(conn: Connection, tenant_id: int) -> list[ApiKey]:
    query = select(api_keys).where(api_keys.c.tenant_id == tenant_id).order_by(api_keys.c.id)
    return [_key(row) for row in conn.execute(query).mappings()]


def count_keys(conn: Connection, tenant_id: int) -> int:
    query = select(func.count()).where(api_keys.c.tenant_id == tenant_id)
    return int(conn.execute(query).scalar_one())


def revoke_key(uow: UnitOfWork, key_id: int, tenant_id: int | None = None) -> bool:
    """Forget a key, of *tenant_id* or of anybody; False when there is none.

    Processes may know it for a few seconds more.
    """
    query = api_keys.delete().where(api_keys.c.id == key_id)
    if tenant_id is not None:
        query = query.where(api_keys.c.tenant_id == tenant_id)
    return bool(uow.conn.execute(query).rowcount)


def note_use(uow: UnitOfWork, key_id: int) -> None:
    """Write down that a key is used now."""
    uow.conn.execute(api_keys.update().where(api_keys.c.id == key_id), {"last_used_at": uow.now})


def find_caller_rows(conn: Connection, key_hash: str) -> CallerRows | None:
    """Return what the key with this hash stands for, or None; one query."""
    row = conn.execute(_CALLER, {"key_hash": key_hash}).mappings().first()
    if row is None:
        return None
    return CallerRows(
        key=_key(_part(row, api_keys)),
        tenant=Tenant(**_part(row, tenants)),
        user=User(**_part(row, users)),
        plan=_plan(_part(row, plans)),
    )


def _part(row: RowMapping, table: Table) -> dict[str, Any]:
    return {column.name: row[_label(column)] for column in table.columns}


def _default_user(conn: Connection, tenant_id: int) -> int:
    query = select(users.c.id).where(users.c.tenant_id == tenant_id, users.c.name == DEFAULT)
    return int(conn.execute(query).scalar_one())


def _plan_row(conn: Connection, name: str) -> Any:
    row = conn.execute(select(plans).where(plans.c.name == name)).first()
    if row is None:
        known = ", ".join(plan.name for plan in all_plans(conn))
        raise LookupError(f"there is no plan {name!r}; there are: {known}")
    return row


def _limits(source: Any) -> dict[str, Any]:
    names = ("weight", "cap_running", "cap_queued", "clips_per_day")
    return {name: getattr(source, name) for name in names}


def _plan(row: Mapping[Any, Any]) -> Plan:
    values = {name: row[name] for name in Plan.__dataclass_fields__}
    return Plan(**{**values, "lane": Lane(row["lane"]), "pools": tuple(row["pools"])})


def _tenant(row: Any) -> Tenant:
    return Tenant(**row._mapping)  # noqa: SLF001  a row's names


def _user(row: Any) -> User:
    return User(**row._mapping)  # noqa: SLF001  a row's names


def _key(row: Mapping[Any, Any]) -> ApiKey:
    values = dict(row)
    granted = {name: values.pop(name) for name in Grant.__dataclass_fields__}
    scopes = frozenset(map(Scope, granted["scopes"]))
    return ApiKey(**values, grant=Grant(**{**granted, "scopes": scopes}))
