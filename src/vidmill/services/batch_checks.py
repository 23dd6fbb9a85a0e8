"""The check of a batch: what each row costs or what is wrong with it, and if that still is so."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from vidmill.domain.batch import RowState
from vidmill.domain.errors import (
    BatchStateConflict,
    FieldProblem,
    InvalidRequest,
    PermissionDenied,
)
from vidmill.domain.job import Job
from vidmill.domain.order import Order
from vidmill.services.submission import Verdict
from vidmill.store.batches import BatchRow, Link, NewRow, Tally

Accept = Literal["ready_rows_only", "all_or_nothing"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A row to check: a well-typed order, or what was wrong with it already."""

    line: int
    custom_id: str | None = None
    order: Order | None = None
    problems: Sequence[FieldProblem] = ()


def checked_rows(candidates: Iterable[Candidate], quote: Callable[[Order], int]) -> list[NewRow]:
    """Return the rows as they are stored; *quote* prices an order or refuses it."""
    return [_checked(one, quote) for one in _told_apart(candidates)]


def problem_records(error: InvalidRequest | PermissionDenied) -> list[dict[str, Any]]:
    """Return what is wrong with an order, as rows keep it."""
    if isinstance(error, InvalidRequest):
        return [_record(problem) for problem in error.problems]
    return [_record(FieldProblem(pointer="#/priority", code=error.code, message=str(error)))]


def links_of(rows: Sequence[BatchRow], verdicts: Sequence[Verdict]) -> list[Link]:
    """Return what became of *rows* by the *verdicts* on them."""
    return [
        Link(number=row.number, job=verdict)
        if isinstance(verdict, Job)
        else Link(number=row.number, job=None, problems=problem_records(verdict))
        for row, verdict in zip(rows, verdicts, strict=True)
    ]


def refuse_unless_as_told(links: Sequence[Link], told: Tally, accept: Accept) -> None:
    """Refuse to queue what differs from what the owner was told when the batch was checked.

    Raises:
        BatchStateConflict: No row is ready, or not all, or they cost more now.
    """
    queued = [one.job for one in links if one.job is not None]
    num_wrong = told.rows.get(RowState.INVALID, 0) + len(links) - len(queued)
    if not queued:
        raise BatchStateConflict("no row of the batch is ready; mend the rows and send them anew")
    if num_wrong and accept == "all_or_nothing":
        raise BatchStateConflict(
            f"{num_wrong} rows are wrong and you accept all or nothing; mend them and send the"
            " batch anew, or accept 'ready_rows_only'"
        )
    price, was = sum(job.price_credits for job in queued), told.credits.get(RowState.READY, 0)
    if price > was:
        raise BatchStateConflict(
            f"the price was {was} credits when the batch was checked and is {price} now;"
            " send the batch anew to see it row by row"
        )


def _checked(one: Candidate, quote: Callable[[Order], int]) -> NewRow:
    wrong, price = [_record(problem) for problem in one.problems], 0
    if one.order is not None:
        try:
            price = quote(one.order)
        except (InvalidRequest, PermissionDenied) as error:
            wrong += problem_records(error)
    return NewRow(
        line=one.line,
        custom_id=one.custom_id,
        wanted=None if wrong or one.order is None else _fields_of(one.order),
        problems=wrong,
        price_credits=0 if wrong else price,
    )


def _told_apart(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Yield the rows, those with a `custom_id` that an earlier one has with a problem."""
    first: dict[str, int] = {}
    for one in candidates:
        line = one.line if one.custom_id is None else first.setdefault(one.custom_id, one.line)
        if line == one.line:
            yield one
            continue
        message = f"{(one.custom_id or '')[:60]!r} is the row on line {line} already"
        twice = FieldProblem(pointer="#/custom_id", code="duplicate", message=message)
        yield Candidate(
            line=one.line,
            custom_id=one.custom_id,
            order=one.order,
            problems=[*one.problems, twice],
        )


def _record(problem: FieldProblem) -> dict[str, Any]:
    """Return *problem* as a database keeps it: its texts may cite what none can hold."""
    found = _fields_of(problem)
    return {name: _storable(one) if isinstance(one, str) else one for name, one in found.items()}


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\x00", "?")


def _fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a flat dataclass, as JSON knows them."""
    found = {one.name: getattr(value, one.name) for one in fields(value)}
    return {name: dict(one) if isinstance(one, Mapping) else one for name, one in found.items()}
