"""How much of its plan a tenant uses: clips of the day, queued, running."""

from collections.abc import Sequence
from dataclasses import dataclass

from vidmill.domain.allowance import Standing
from vidmill.store import accounts, daily, jobs
from vidmill.store.accounts import Plan
from vidmill.store.session import Connection, Database

DAILY = "daily"


@dataclass(frozen=True)
class Quota:
    """Tells what `store.insertion` and the claim heed."""

    db: Database

    def day(self, tenant_id: int, plan: Plan) -> Standing | None:
        """Return how the clips of today stand; None = the plan does not limit them.

        Raises:
            ServiceUnavailable: The database cannot be read now.
        """
        limit, now = plan.clips_per_day, self.db.now()
        if limit is None:
            return None
        used = self.db.look(lambda conn: daily.clips_of(conn, tenant_id, now=now))
        return Standing(
            name=DAILY,
            limit=limit,
            used=used,
            window_s=daily.DAY_S,
            resets_at=daily.ends_at(now),
        )

    def standings(self, tenant_id: int, plan: Plan) -> Sequence[Standing]:
        """Return how all limits stand that have to do with clips.

        Raises:
            ServiceUnavailable: As `day`.
        """

        def read(conn: Connection) -> tuple[accounts.Tenant | None, int]:
            return accounts.get_tenant(conn, tenant_id), jobs.num_waiting(conn, tenant_id)

        (tenant, waiting), day = self.db.read(read), self.day(tenant_id, plan)
        assert tenant is not None, "a tenant is never deleted"
        return [
            *([day] if day else []),
            Standing(name="queued", limit=tenant.cap_queued, used=waiting),
            Standing(name="running", limit=tenant.cap_running, used=tenant.running),
        ]
