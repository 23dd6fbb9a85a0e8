"""Every answer fits the schema that the reference publishes for it."""

import pytest

from tests.desks import Bench, finish, make_bench
from vidmill.api import reference
from vidmill.api.dialects import native_models as models
from vidmill.api.errors import KINDS, Problem, kind_of, problem
from vidmill.domain.errors import ERRORS, WORK_ERRORS, EngineOutOfMemory, RequestError
from vidmill.store import jobs

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""


@pytest.fixture
def task_ids(bench: Bench) -> list[str]:
    """Tasks in every state."""
    done = finish(bench)
    failed = bench.generate()["task_id"]
    bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="black"))
    delayed = bench.generate()["task_id"]
    later = jobs.Delayed(not_before=bench.clock.now + 9, code="worker_lost", message="gone")
    bench.settle(bench.claim(), later)
    running = bench.generate()["task_id"]
    bench.claim("w2")
    cancelled = bench.generate()["task_id"]
    bench.client.post(f"/v1/t2v/tasks/{cancelled}/cancel")
    return [done, failed, delayed, running, cancelled, bench.generate()["task_id"]]


def test_tasks_in_every_state_fit_their_schemas(bench: Bench, task_ids: list[str]) -> None:
    for task_id in task_ids:
        status = bench.client.get("/v1/t2v/status", params={"task_id": task_id})
        models.TaskStatus.model_validate_json(status.content, strict=True)
        task = bench.client.get(f"/v1/t2v/tasks/{task_id}")
        models.Task.model_validate_json(task.content, strict=True)


def test_result_list_capabilities_and_readiness_fit_their_schemas(
    bench: Bench, task_ids: list[str]
) -> None:
    result = bench.client.get(f"/v1/t2v/result/{task_ids[0]}")
    models.TaskResult.model_validate_json(result.content, strict=True)
    page = bench.client.get("/v1/t2v/tasks", params={"limit": 2})
    models.TaskPage.model_validate_json(page.content, strict=True)
    offered = bench.client.get("/v1/t2v/capabilities")
    models.Capabilities.model_validate_json(offered.content, strict=True)
    models.Readiness.model_validate_json(bench.client.get("/readyz").content, strict=True)


def test_problems_fit_their_schema(bench: Bench) -> None:
    for answer in (
        bench.client.post("/v1/t2v/generate", json={"promt": "x"}),
        bench.client.get("/nope"),
        bench.stranger().get("/v1/t2v/tasks"),
    ):
        Problem.model_validate_json(answer.content, strict=True)


def test_every_request_error_has_its_look() -> None:
    kinds = {kind for kind in ERRORS.values() if issubclass(kind, RequestError)}

    assert {kind for kind in kinds if kind not in KINDS} == set()


def test_an_error_that_is_not_listed_looks_like_its_parent_or_unexpected() -> None:
    assert kind_of(EngineOutOfMemory("x")).status == 500
    assert problem(EngineOutOfMemory("x"), request_id="r")["code"] == "out_of_memory"


def test_every_error_code_is_in_the_reference() -> None:
    page = reference.errors_page()

    assert set(WORK_ERRORS) <= set(reference.WORK_MEANINGS)
    assert [code for code in ERRORS if f"`{code}`" not in page] == []


def test_every_field_of_the_request_is_in_the_reference() -> None:
    page = reference.api_page()

    assert all(f"| `{name}`" in page for name in ("prompt", "duration", "seed", "metadata"))


def test_operations_have_names_and_every_guarded_one_wants_a_key(bench: Bench) -> None:
    doc = bench.client.get("/openapi.json").json()

    operations = [op for path in doc["paths"].values() for op in path.values()]
    names = [op["operationId"] for op in operations]
    assert len(names) == len(set(names))
    guarded = [op for path, item in doc["paths"].items() if "/v1" in path for op in item.values()]
    assert all(op["security"] == [{"apiKey": []}] and "401" in op["responses"] for op in guarded)


def test_a_model_with_prompt_rules_shows_what_they_added(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    bench = make_bench(tmp_path_factory.mktemp("wan"), profile="a14b-quality")
    task_id = bench.generate(style="warm", camera="orbit", enable_physics=True)["task_id"]

    doc = bench.client.get(f"/v1/t2v/tasks/{task_id}").json()

    models.Task.model_validate(doc)
    assert [added["rule"] for added in doc["additions"]] == [
        "style.warm",
        "camera.orbit",
        "physics",
        "negative.default",
    ]
    assert all(added["text"] in doc[added["target"]] for added in doc["additions"])
    bench.close()
