"""Rows become domain values, here and nowhere else."""

from typing import Any

from vidmill.domain.clip import ClipResult, ClipSpec
from vidmill.domain.job import Job, JobState, Lane, Phase


def to_job(row: Any) -> Job:
    """Return the job in *row*, which holds every column of `jobs`, `search_text` or not."""
    values = dict(row._mapping)  # noqa: SLF001  the documented way to a row's names
    values.pop("search_text", None)
    result = values["result"]
    values["lane"] = Lane(values["lane"])
    values["state"] = JobState(values["state"])
    values["phase"] = Phase(values["phase"])
    values["spec"] = ClipSpec.from_json(values["spec"])
    values["result"] = None if result is None else ClipResult.from_json(result)
    return Job(**values)
