"""Whatever arrives: an order that round-trips, or a refusal that names fields."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from vidmill.api.body import parse
from vidmill.api.desk import limits_of
from vidmill.api.dialects.native_request import GenerateBody, read_order
from vidmill.api.errors import NATIVE, Asked, problem
from vidmill.domain.clip import SEED_MAX, ClipSpec, normalise_text
from vidmill.domain.errors import FieldProblem, InvalidRequest, MalformedBody
from vidmill.domain.order import Order, problems, shape, to_spec
from vidmill.profiles import load_profile
from vidmill.settings import Settings

LIMITS = limits_of(Settings.model_validate({}))
TINY = load_profile("tiny")

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
field_names = st.sampled_from([*GenerateBody.model_fields, "promt", "size", ""])
visible = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=60)
good_bodies = st.fixed_dictionaries(
    {"prompt": visible.map(lambda text: f"a{text}")},
    optional={
        "negative_prompt": visible | st.none(),
        "use_default_negative_prompt": st.booleans(),
        "resolution": st.sampled_from(["480p", "720p"]),
        "duration": st.integers(30, 100).map(lambda tenths: tenths / 10) | st.integers(3, 10),
        "frame_rate": st.sampled_from(LIMITS.frame_rates) | st.none(),
        "style": st.none(),
        "camera": st.none(),
        "language": st.sampled_from(TINY.languages) | st.none(),
        "enable_physics": st.just(False),
        "seed": st.integers(0, SEED_MAX) | st.none(),
        "priority": st.sampled_from(["normal", "low", "high"]),
        "client_reference": visible | st.none(),
        "metadata": st.dictionaries(visible, visible, max_size=16) | st.none(),
    },
)


def check(order: Order) -> list[FieldProblem]:
    return problems(order, LIMITS, TINY)


def refusal(act: Callable[[], object]) -> InvalidRequest | None:
    """Return how *act* was refused, None if it was not; anything else is a defect and goes up."""
    try:
        act()
    except InvalidRequest as error:
        return error
    return None


@given(st.dictionaries(field_names, anything, max_size=5) | anything)
@settings(max_examples=300, deadline=None)
def test_any_json_is_an_order_or_a_refusal_that_names_fields(data: Any) -> None:
    error = refusal(lambda: read_order(data, check))

    if error is not None:
        assert error.problems
        assert all(p.pointer.startswith("#") and p.code and p.message for p in error.problems)
        answer = NATIVE.response(error, Asked("POST", "/v1/t2v/generate", "r"))
        assert json.loads(bytes(answer.body))["status"] == 422


@given(field_names.filter(bool), anything)
@settings(max_examples=300, deadline=None)
def test_one_bad_field_is_never_blamed_on_another(name: str, value: Any) -> None:
    try:
        order = read_order({"prompt": "a red ball", name: value}, check)
        wrong = check(order)
    except InvalidRequest as error:
        wrong = list(error.problems)
    assert {p.pointer.split("/")[1] for p in wrong} <= {name}


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_json_or_malformed(body: bytes) -> None:
    try:
        parse(body)
    except MalformedBody as error:
        status = problem(error, request_id="r")["status"]
    else:
        status = 200
    assert status in {200, 400}


@given(good_bodies, st.integers(0, SEED_MAX))
@settings(max_examples=200, deadline=None)
def test_every_good_body_gives_a_spec_that_round_trips(body: dict[str, Any], seed: int) -> None:
    order = read_order(parse(json.dumps(body).encode()), check)
    assert check(order) == []

    spec = to_spec(order, shape(order, TINY), limits=LIMITS, profile=TINY, seed=seed)

    again = ClipSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.cache_key() == spec.cache_key()
    assert spec.prompt == normalise_text(body["prompt"])
    assert spec.seed == (seed if body.get("seed") is None else body["seed"])
    assert spec.num_frames % TINY.frame_stride == 1
    assert spec.delivered_frames == round(spec.duration_s * spec.fps)
