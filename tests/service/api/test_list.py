"""The list: pages, filters, cursors."""

from tests.desks import Bench
from vidmill.store import jobs

TASKS = "/v1/t2v/tasks"


def ids(page: dict[str, list[dict[str, str]]]) -> list[str]:
    return [doc["task_id"] for doc in page["data"]]


def test_pages_follow_each_other_without_gap_or_repeat_while_tasks_arrive(bench: Bench) -> None:
    made = [bench.generate()["task_id"] for _ in range(7)]
    seen: list[str] = []
    params: dict[str, str | int] = {"limit": 3}
    while True:
        page = bench.client.get(TASKS, params=params).json()
        seen += ids(page)
        bench.generate()
        if not page["has_more"]:
            break
        params["cursor"] = page["next_cursor"]

    assert seen == made[::-1]


def test_the_last_page_has_no_cursor(bench: Bench) -> None:
    bench.generate()

    page = bench.client.get(TASKS, params={"limit": 1}).json()

    assert (page["has_more"], page["next_cursor"]) == (False, None)


def test_filters_narrow_the_list(bench: Bench) -> None:
    first = bench.generate(client_reference="a")["task_id"]
    bench.clock.advance(10)
    second = bench.generate(client_reference="b")["task_id"]
    bench.claim()

    def listed(**params: str) -> list[str]:
        return ids(bench.client.get(TASKS, params=params).json())

    assert listed(status="processing") == [first]
    assert listed(status="queued") == [second]
    assert listed(client_reference="b") == [second]
    assert listed(created_before="2027-01-15T08:00:05Z") == [first]
    assert listed(created_after="2027-01-15T08:00:05Z") == [second]
    assert listed(status="failed") == []


def test_search_ignores_case_in_every_script_and_takes_wildcards_for_themselves(
    bench: Bench,
) -> None:
    russian = bench.generate(prompt="Красный МЯЧ")["task_id"]
    percent = bench.generate(prompt="100% wool", client_reference="Jacket_7")["task_id"]

    def found(q: str) -> list[str]:
        return ids(bench.client.get(TASKS, params={"q": q}).json())

    assert found("мяч") == [russian]
    assert found("0%") == found("JACKET_7") == [percent]
    assert found("_") == [percent]
    assert found("ball") == []
    assert ids(bench.other().get(TASKS, params={"q": "wool"}).json()) == []


def test_metadata_narrows_the_list(bench: Bench) -> None:
    jacket = bench.generate(metadata={"sku": "7", "my key": "ü"})["task_id"]
    bench.generate(metadata={"sku": "8"})

    def found(**params: str) -> list[str]:
        return ids(bench.client.get(TASKS, params=params).json())

    assert found(**{"metadata.sku": "7"}) == [jacket]
    assert found(**{"metadata.sku": "7", "metadata.my key": "ü"}) == [jacket]
    assert found(**{"metadata.sku": "7", "metadata.none": "x"}) == []


def test_the_oldest_come_first_when_asked(bench: Bench) -> None:
    made = [bench.generate()["task_id"] for _ in range(3)]
    first = bench.client.get(TASKS, params={"order": "asc", "limit": 2}).json()
    params = {"order": "asc", "cursor": first["next_cursor"]}

    assert ids(first) + ids(bench.client.get(TASKS, params=params).json()) == made


def test_a_task_given_back_to_the_queue_stays_processing(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    bench.settle(bench.claim(), jobs.Requeued())

    (shown,) = bench.client.get(TASKS, params={"status": "processing"}).json()["data"]

    assert (shown["task_id"], shown["status"], shown["phase"]) == (task_id, "processing", "waiting")
    assert bench.client.get(TASKS, params={"status": "queued"}).json()["data"] == []


def test_a_cursor_with_other_filters_is_refused(bench: Bench) -> None:
    for _ in range(2):
        bench.generate()
    cursor = bench.client.get(TASKS, params={"limit": 1}).json()["next_cursor"]

    answer = bench.client.get(TASKS, params={"cursor": cursor, "status": "queued"})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


def test_a_cursor_works_with_another_page_size(bench: Bench) -> None:
    for _ in range(3):
        bench.generate()
    cursor = bench.client.get(TASKS, params={"limit": 1}).json()["next_cursor"]

    page = bench.client.get(TASKS, params={"cursor": cursor, "limit": 50}).json()

    assert len(page["data"]) == 2


def test_a_cursor_of_another_tenant_is_refused(bench: Bench) -> None:
    for _ in range(2):
        bench.generate()
    cursor = bench.client.get(TASKS, params={"limit": 1}).json()["next_cursor"]

    answer = bench.other().get(TASKS, params={"cursor": cursor})

    assert answer.json()["code"] == "invalid_cursor"


def test_a_finished_task_is_listed_as_the_status_shows_it(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="black"))

    (listed,) = bench.client.get(TASKS).json()["data"]

    assert listed == bench.client.get("/v1/t2v/status", params={"task_id": task_id}).json()
