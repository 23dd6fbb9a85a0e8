"""Rows become domain values, here and nowhere else."""

from typing import Any

from vidmill.domain.clip import ClipResult, ClipSpec
from vidmill.domain.job import Job, JobState, Lane, Phase
from vidmill.store.models import NO_PART_OF_A_JOB


def to_job(row: Any) -> Job:
    """Return the job in *row*, which holds every column of `jobs`, those of no `Job` or not."""
    values = dict(row._mapping)  # noqa: SLF001  the documented way to a row's names
    for name in NO_PART_OF_A_JOB:
        values.pop(name, None)
    result = values["result"]
    values["lane"] = Lane(values["lane"])
    values["state"] = JobState(values["state"])
    values["phase"] = Phase(values["phase"])
    values["spec"] = ClipSpec.from_json(values["spec"])
    values["result"] = None if result is None else ClipResult.from_json(result)
    return Job(**values)
