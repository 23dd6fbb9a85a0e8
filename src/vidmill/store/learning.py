"""How long clips took: the latest durations of every shape in every pool."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from vidmill.domain.clip import ClipSpec
from vidmill.store.unit import UnitOfWork

KEPT = 64
"""Durations kept of a shape: enough for its median and mean, few enough to follow a new driver."""

_SHAPE = """profile = :profile AND width_px = :width_px AND height_px = :height_px
       AND num_frames = :num_frames AND steps = :steps"""

# The oldest makes room. Two runs that settle at once may take the same slot: one of them is
# forgotten, which harms nobody, and no row has to be locked for a counter.
_LEARN = text(f"""
    INSERT INTO durations (pool, profile, width_px, height_px, num_frames, steps, slot, at,
                           render_s, total_s)
    SELECT :pool, :profile, :width_px, :height_px, :num_frames, :steps,
           CASE WHEN count(*) < :kept THEN count(*)
                ELSE (SELECT o.slot FROM durations o WHERE o.pool = :pool AND {_SHAPE}
                       ORDER BY o.at, o.slot LIMIT 1) END,
           :now, :render_s, :total_s
      FROM durations WHERE pool = :pool AND {_SHAPE}
    ON CONFLICT (pool, profile, width_px, height_px, num_frames, steps, slot) DO UPDATE SET
           at = excluded.at, render_s = excluded.render_s, total_s = excluded.total_s""")  # noqa: S608  no value is in it
_OF_POOL = text(
    f"SELECT render_s, total_s FROM durations WHERE pool = :pool AND {_SHAPE}"  # noqa: S608
)
_OF_ANY_POOL = text(
    f"SELECT render_s, total_s FROM durations WHERE {_SHAPE}"  # noqa: S608
    " ORDER BY at DESC LIMIT :kept"
)


@dataclass(frozen=True, kw_only=True)
class Durations:
    """What such clips took lately.

    Attributes:
        render_s: Mean GPU seconds.
        totals_s: Seconds from claim to end, ascending; never empty.
    """

    render_s: float
    totals_s: tuple[float, ...]


def learn(uow: UnitOfWork, *, pool: str, spec: ClipSpec, gpu_s: float, total_s: float) -> None:
    """Remember what a finished clip took."""
    values = {**_key(spec), "pool": pool, "now": uow.now, "kept": KEPT}
    uow.conn.execute(_LEARN, {**values, "render_s": gpu_s, "total_s": total_s})


def durations(conn: Connection, spec: ClipSpec, pool: str) -> Durations | None:
    """Return what clips of this shape took in *pool*, else anywhere; None = never made here."""
    key = {**_key(spec), "pool": pool, "kept": KEPT}
    rows = conn.execute(_OF_POOL, key).all() or conn.execute(_OF_ANY_POOL, key).all()
    if not rows:
        return None
    return Durations(
        render_s=sum(row.render_s for row in rows) / len(rows),
        totals_s=tuple(sorted(row.total_s for row in rows)),
    )


def _key(spec: ClipSpec) -> dict[str, Any]:
    key: dict[str, Any] = {"profile": spec.profile, "num_frames": spec.num_frames}
    key |= {"width_px": spec.native.width_px, "height_px": spec.native.height_px}
    return {**key, "steps": spec.steps}
