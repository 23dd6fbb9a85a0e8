"""The tree of errors."""

import errno

import pytest

from vidmill.domain import errors
from vidmill.domain.errors import (
    ERRORS,
    WORK_ERRORS,
    FieldProblem,
    InvalidRequest,
    VidmillError,
    storage_error,
)


def every_class(root: type[VidmillError]) -> list[type[VidmillError]]:
    return [root, *(found for child in root.__subclasses__() for found in every_class(child))]


def test_every_error_that_can_be_raised_has_a_code_of_its_own() -> None:
    abstract = {VidmillError, errors.RequestError, errors.WorkError}
    concrete = [kind for kind in every_class(VidmillError) if kind not in abstract]
    assert {kind.code: kind for kind in concrete} == ERRORS
    assert len(concrete) == len(ERRORS)


def test_every_error_is_drawn_in_the_tree() -> None:
    names = {kind.__name__ for kind in every_class(VidmillError)}
    assert not {name for name in names if name not in (errors.__doc__ or "")}


def test_work_error_comes_back_as_itself_by_its_code() -> None:
    assert WORK_ERRORS["out_of_memory"] is errors.EngineOutOfMemory
    assert isinstance(WORK_ERRORS["out_of_memory"]("full"), errors.EngineFailed)


def test_requests_errors_are_not_work_errors() -> None:
    assert "invalid_request" not in WORK_ERRORS


def test_invalid_request_names_every_field_at_once() -> None:
    problems = [
        FieldProblem(pointer="#/prompt", code="max_length", message="is too long", limit=200),
        FieldProblem(pointer="#", code="type", message="is not an object"),
    ]
    error = InvalidRequest(problems)
    assert str(error) == "prompt: is too long; body: is not an object"
    assert error.problems == tuple(problems)


@pytest.mark.parametrize("kind", ERRORS.values())
def test_no_error_on_the_callers_side_is_retryable_but_for_pressure_and_slow_lines(
    kind: type[VidmillError],
) -> None:
    passing = {
        errors.BodyTooSlow,
        errors.QueueFull,
        errors.ServiceUnavailable,
        errors.EnhancerUnavailable,
        errors.RateLimited,
        errors.IdempotencyInProgress,
    }
    if issubclass(kind, errors.RequestError):
        assert kind.is_retryable == (kind in passing)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_every_way_of_having_no_room_is_a_full_disk(number: int) -> None:
    error = storage_error(OSError(number, "no room"), "writing clip.mp4")
    assert type(error) is errors.DiskFull
    assert "writing clip.mp4" in str(error)


def test_other_trouble_with_files_is_a_storage_failure() -> None:
    error = storage_error(OSError(errno.EIO, "input/output error"), "writing clip.mp4")
    assert type(error) is errors.StorageFailed
    assert error.is_retryable


def test_range_beyond_the_file_tells_how_long_it_is() -> None:
    error = errors.RangeNotSatisfiable(1000)
    assert (error.size_bytes, "1000 bytes" in str(error)) == (1000, True)
