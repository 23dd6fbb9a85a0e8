"""Many at once: cancels against completions, and tenants against one another."""

import random
import threading
from collections import Counter

from tests.faults.history import Operation, jain
from tests.faults.kills import OVER_S
from tests.faults.shared import Services
from tests.faults.stage import Stage, open_stage
from tests.faults.verdict import Verdict

SEED = 20


def cancel_storm(
    services: Services, *, cancels: int, broker: str = "redis", database: str = "postgresql"
) -> Verdict:
    """Every job is cancelled at about the time when it ends by itself."""
    verdict = Verdict()
    with open_stage(services, broker=broker, database=database, tenants=1) as stage:
        stage.work_s = 0.03
        stage.serve(2)
        stage.hire(4)
        threads = [
            threading.Thread(target=_order_and_cancel, args=(stage, cancels // 4, number))
            for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        verdict.require(stage.wait_over(OVER_S), "not all jobs ended")
        states = stage.states()
        verdict.done = f"{len(stage.history.of('cancel'))} cancels racing claims and completions"
        answers = {str(k): n for k, n in stage.history.statuses("cancel").items()}
        verdict.note(f"answers to cancels: {answers}")
        verdict.require(set(states) <= {"succeeded", "cancelled"}, f"states {dict(states)}")
        verdict.require(set(answers) <= {"200", "202", "409", "503"}, f"answers {answers}")
        promised = {o.value["task_id"] for o in stage.history.of("cancel") if is_final(o)}
        rows = stage.rows("SELECT public_id FROM jobs WHERE state = 'cancelled'")
        broken = promised - {row[0] for row in rows}
        verdict.hold("cancels confirmed and not kept", len(broken), at_most=0)
        verdict.require(min(states["succeeded"], states["cancelled"]) > 0, f"no race: {states}")
        verdict.judge(stage)
    return verdict


def is_final(operation: Operation) -> bool:
    """Return whether the answer to a cancel said that the job is over, and not just stopping."""
    return bool(operation.value.get("status") == 200)


def _order_and_cancel(stage: Stage, count: int, seed: int) -> None:
    client, rng = stage.client(), random.Random(SEED + seed)
    waiting: list[str] = []
    for _ in range(count):
        task = client.submit()
        waiting += [task] if task else []
        if len(waiting) > rng.randrange(8):
            client.cancel(waiting.pop(0), stage.keys[0])
    for task in waiting:
        client.cancel(task, stage.keys[0])


STARTS = """
SELECT j.tenant_id FROM jobs j JOIN attempts a ON a.job_id = j.id
 WHERE a.attempt = 1 ORDER BY a.started_at LIMIT :first"""


def one_owns_half(services: Services, *, tenants: int, each: int) -> Verdict:
    """One tenant queues as much as all others together, and first."""
    verdict = Verdict()
    with open_stage(services, tenants=tenants, cap_running=3) as stage:
        stage.serve(2)
        crowd = each * (tenants - 1)
        client = stage.client()
        for _ in range(crowd):
            client.submit(key=stage.keys[0])
        stage.load_each(stage.keys[1:], each)
        stage.hire(4)
        verdict.require(stage.wait_over(OVER_S), "not all jobs ended")
        first = each * tenants  # all still have jobs then, if they were served alike
        shares = Counter(row[0] for row in stage.rows(STARTS, first=first * 4 // 5))
        verdict.done = f"{tenants} tenants, {2 * crowd} jobs, one owns half"
        index = jain([float(shares[number]) for number in range(1, tenants + 1)])
        verdict.note(f"Jain's index {index:.4f} (at least 0.98)")
        verdict.require(index >= 0.98, f"Jain's index {index:.4f}")
        verdict.expect_all_succeeded(stage)
        verdict.judge(stage)
    return verdict
