"""Every route against the OpenAPI document: no 5xx, and no answer that it does not announce.

`schemathesis` makes requests of the schemas, right ones and wrong ones; ids are often those of
things that are there, as a made-up one leads nowhere but to 404.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.desks import KEY, Bench, finish, make_bench
from tests.loras import TINY, make_pair, upload

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 5
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
PATIENT = ("Prefer", "Last-Event-ID")
"""Headers that may make an answer wait."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = make_bench(tmp_path_factory.mktemp("schemas"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def things(bench: Bench) -> dict[str, str]:
    """Return an id of each kind that is there, by the name of the path's parameter."""
    task_id = finish(bench)
    batch = bench.client.post("/v1/t2v/batches", json={"items": [{"prompt": "a red ball"}]})
    shots = {"shots": [{"prompt": "a red ball"}, {"prompt": "a blue cube"}]}
    storyboard = bench.client.post("/v1/t2v/storyboards", json=shots)
    webhooks = bench.client.get("/v1/t2v/webhooks").json()
    style = make_pair(bench.folder / "style", 1, config=TINY)
    return {
        "lora_name": upload(bench.client, style).json()["name"],
        "task_id": task_id,
        "video_id": task_id,
        "batch_id": batch.json()["batch_id"],
        "storyboard_id": storyboard.json()["storyboard_id"],
        "number": "1",
        "webhook_id": webhooks["data"][-1]["id"],
        "webhook_endpoint_id": webhooks["data"][-1]["id"],
    }


def operations(schema: Any) -> Iterator[Any]:
    """Yield what can be asked for without breaking what others ask for."""
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.startswith(("/v1/", "/api/", "/files/")) and operation.method != "delete":
            yield operation


def make_impatient(case: Any) -> None:
    """Leave out what makes an answer wait for news."""
    for name in PATIENT:
        (case.headers or {}).pop(name, None)
    (case.query or {}).pop("wait", None)


def try_out(operation: Any, things: dict[str, str], mode: GenerationMode) -> None:
    """Send some requests of one operation and hold each answer against its schema."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), is_real=st.booleans())
    def send(case: Any, *, is_real: bool) -> None:
        for name in case.path_parameters or {}:
            if name in things and (is_real or operation.path.endswith("/events")):
                case.path_parameters[name] = things[name]
        make_impatient(case)
        case.call_and_validate(headers=AUTHORIZED, checks=CHECKS)

    send()


@pytest.mark.sqlite  # what is tried here is HTTP
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=str)
def test_every_answer_is_one_that_the_document_announces(
    bench: Bench, things: dict[str, str], mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", bench.api)
    wrong = {}
    for operation in operations(schema):
        try:
            try_out(operation, things, mode)
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - all are told, not one
            wrong[operation.label] = str(error)[:1500]
    assert wrong == {}, "\n\n".join(f"{name}: {said}" for name, said in wrong.items())


@pytest.mark.sqlite
def test_no_walk_from_answer_to_answer_meets_one_that_is_not_announced(bench: Bench) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", bench.api)
    walked = schema.include(path_regex="^/(v1|api)/").exclude(path_regex="/events$")

    class Walk(walked.as_state_machine()):  # type: ignore[misc]  # made at run time
        def before_call(self, case: Any) -> None:
            make_impatient(case)

        def get_call_kwargs(self, _case: Any) -> dict[str, Any]:
            return {"headers": AUTHORIZED}

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            case.validate_response(response, checks=CHECKS)

    run_state_machine_as_test(
        Walk,
        settings=settings(
            max_examples=40,
            stateful_step_count=6,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
