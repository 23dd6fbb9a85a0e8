"""Bodies of the OpenAI dialect, whatever is in them."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from vidmill.api.desk import limits_of
from vidmill.api.dialects.openai_fields import FIELDS_MAX, read_fields
from vidmill.api.dialects.openai_request import read_create
from vidmill.api.dialects.served import offered_sizes
from vidmill.domain.errors import FieldProblem, InvalidRequest, MalformedBody, RequestError
from vidmill.domain.order import Order, problems
from vidmill.profiles import load_profile
from vidmill.settings import Settings

TINY = load_profile("tiny")
LIMITS = limits_of(Settings.model_validate({"data_dir": "/nowhere"}))
SIZES = offered_sizes(LIMITS, TINY)
NAMES = [
    *("prompt", "model", "seconds", "size", "seed", "negative_prompt", "enable_physics", "cache"),
    *("width", "height", "num_frames", "fps", "metadata", "flow_shift", "input_reference", "user"),
]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
names = st.sampled_from(NAMES) | st.text(max_size=12)


def read(body: bytes, content_type: str) -> dict[str, Any]:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", content_type.encode("latin-1"))]
    scope = {"type": "http", "method": "POST", "headers": headers}
    return asyncio.run(read_fields(Request(scope, receive)))


def order_of(fields: dict[str, Any]) -> Order:
    return read_create(fields, lambda order: problems(order, LIMITS, TINY), SIZES, TINY)


def outcome(fields: dict[str, Any]) -> Order | tuple[FieldProblem, ...]:
    try:
        return order_of(fields)
    except InvalidRequest as error:
        return error.problems


def form(fields: dict[str, str], boundary: str = "b") -> bytes:
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    return "".join([*parts, f"--{boundary}--\r\n"]).encode()


@given(st.dictionaries(names, values, max_size=6))
@settings(max_examples=300, deadline=None)
def test_whatever_the_fields_are_there_is_an_order_or_a_named_problem(
    fields: dict[str, Any],
) -> None:
    found = outcome(fields)
    if isinstance(found, Order):
        assert problems(found, LIMITS, TINY) == []
    else:
        assert found
        assert all(p.pointer.startswith("#") and p.code and p.message for p in found)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_whatever_the_bytes_are_they_are_a_form_or_refused(body: bytes) -> None:
    try:
        fields = read(body, "multipart/form-data; boundary=b")
    except RequestError:
        return
    assert all(isinstance(name, str) for name in fields)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "prompt": st.text(
                st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40
            ),
            "seconds": st.sampled_from([3, 4.5, 10]),
            "size": st.sampled_from(sorted(SIZES)),
            "seed": st.integers(0, 2**31 - 1),
            "cache": st.booleans(),
        },
    )
)
@settings(max_examples=100, deadline=None)
def test_a_form_says_what_the_same_json_says(fields: dict[str, Any]) -> None:
    texts = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in fields.items()
    }
    sent = read(form(texts), "multipart/form-data; boundary=b")

    assert outcome(sent) == outcome(fields)


def test_members_of_objects_are_put_together() -> None:
    body = form({"metadata[shop]": "a", "metadata[day]": "monday", "prompt": "x"})
    fields = read(body, "multipart/form-data; boundary=b")
    assert fields == {"metadata": {"shop": "a", "day": "monday"}, "prompt": "x"}
    assert order_of(fields).metadata == {"shop": "a", "day": "monday"}


def test_a_field_that_is_there_twice_is_refused() -> None:
    twice = form({"prompt": "x"}).replace(b"--b--\r\n", b"") + form({"prompt": "y"})
    with pytest.raises(InvalidRequest, match="twice"):
        read(twice, "multipart/form-data; boundary=b")


def test_a_form_has_an_end() -> None:
    many = form({f"f{number}": "x" for number in range(FIELDS_MAX + 1)})
    with pytest.raises(MalformedBody):
        read(many, "multipart/form-data; boundary=b")


def test_a_form_without_its_boundary_is_refused() -> None:
    with pytest.raises(MalformedBody):
        read(form({"prompt": "x"}), "multipart/form-data")


@pytest.mark.parametrize("name", ["seed", "seconds", "guidance_scale"])
def test_a_number_beyond_all_numbers_is_refused(name: str) -> None:
    body = b'{"prompt": "x", "%s": 1%s}' % (name.encode(), b"0" * 400)
    with pytest.raises(InvalidRequest, match=f"{name}: it must be a finite number"):
        order_of(read(body, "application/json"))


@pytest.mark.parametrize(
    "names", [("user", "client_reference"), ("fps", "frame_rate")], ids="-".join
)
def test_a_field_under_both_of_its_names_is_refused(names: tuple[str, str]) -> None:
    fields = {"prompt": "x", **dict.fromkeys(names, "16")}
    with pytest.raises(InvalidRequest, match=f"{names[0]}: give it or '{names[1]}', not both"):
        order_of(fields)
