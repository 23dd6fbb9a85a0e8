"""Public ids."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidmill.domain.ids import canonical_task_id, public_name, task_id

instants = st.integers(0, 2**48 - 1)
bits = st.integers(0, 2**74 - 1)


@given(instants, bits)
def test_id_is_a_uuid_of_version_7_that_holds_its_instant(unix_ms: int, random_bits: int) -> None:
    name = task_id(unix_ms, random_bits)
    value = uuid.UUID(name.removeprefix("t2v_"))
    assert name == f"t2v_{value.hex}"
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert value.int >> 80 == unix_ms


@given(instants, bits, instants, bits)
def test_ids_sort_by_time(first_ms: int, first: int, second_ms: int, second: int) -> None:
    if first_ms < second_ms:
        assert task_id(first_ms, first) < task_id(second_ms, second)


@given(instants, bits, bits)
def test_every_random_bit_counts(unix_ms: int, first: int, second: int) -> None:
    assert (task_id(unix_ms, first) == task_id(unix_ms, second)) == (first == second)


@given(instants, bits)
def test_a_task_is_found_by_each_of_its_names(unix_ms: int, random_bits: int) -> None:
    name = task_id(unix_ms, random_bits)
    names = [name, public_name(name, "video"), name.removeprefix("t2v_")]
    assert [canonical_task_id(each) for each in names] == [name] * 3


@pytest.mark.parametrize("name", ["", "t2v_", "bat_" + "0" * 32, "t2v_" + "A" * 32, "0" * 31, "x"])
def test_other_texts_name_no_task(name: str) -> None:
    assert canonical_task_id(name) is None
