"""Looking at batches: lists, rows, forecasts, results and the archive."""

import io
import json
import zipfile

from tests.batches import BATCHES, confirmed, counts, create, get, lines, post, stored
from tests.builders import make_result
from tests.desks import Bench
from tests.servers import CONTENTS, deliver
from vidmill.api.dialects import native_batch_models as models
from vidmill.domain.job import JobState
from vidmill.store import jobs


def test_rows_say_what_became_of_each(bench: Bench) -> None:
    batch_id = confirmed(bench, "red", "blue", "green")
    bench.settle(bench.claim(), jobs.Succeeded(result=make_result()))
    bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="it is black"))
    bench.claim()

    rows = get(bench, batch_id, "/rows")["data"]

    assert [(row["custom_id"], row["status"]) for row in rows] == [
        ("row 1", "completed"),
        ("row 2", "failed"),
        ("row 3", "processing"),
    ]
    assert rows[1]["error"] == {
        "code": "bad_output",
        "message": "it is black",
        "retryable": True,
    }
    assert counts(get(bench, batch_id)) == {
        "total": 3,
        "completed": 1,
        "failed": 1,
        "processing": 1,
    }
    assert get(bench, batch_id)["price"] == {
        "credits": 90,
        "held": 30,
        "captured": 30,
        "released": 30,
    }


def test_rows_come_in_pages_and_by_status(bench: Bench) -> None:
    batch_id = create(bench, *({"prompt": text} for text in ("red", "", "blue", "", "green")))[
        "batch_id"
    ]

    first = get(bench, batch_id, "/rows", params={"limit": 2})
    second = get(bench, batch_id, "/rows", params={"limit": 2, "cursor": first["next_cursor"]})
    wrong = get(bench, batch_id, "/rows", params={"status": "invalid"})

    assert [row["line"] for row in first["data"] + second["data"]] == [1, 2, 3, 4]
    assert (first["has_more"], second["has_more"]) == (True, True)
    assert [row["line"] for row in wrong["data"]] == [2, 4]


def test_batches_are_listed_newest_first_in_pages(bench: Bench) -> None:
    ids = [create(bench, {"prompt": "red"})["batch_id"] for _ in range(3)]

    first = bench.client.get(BATCHES, params={"limit": 2}).json()
    second = bench.client.get(BATCHES, params={"limit": 2, "cursor": first["next_cursor"]}).json()

    assert [doc["batch_id"] for doc in first["data"] + second["data"]] == ids[::-1]
    assert (second["has_more"], second["next_cursor"]) == (False, None)


def test_results_are_one_line_for_each_row_that_is_over(bench: Bench) -> None:
    batch_id = create(bench, {"custom_id": "a", "prompt": "red"}, {"prompt": ""}, {"prompt": "b"})[
        "batch_id"
    ]
    post(bench, batch_id, "confirm")
    done = bench.claim()
    bench.settle(done, jobs.Succeeded(result=make_result()))

    found = lines(bench, batch_id)

    assert [(line["line"], line["status"]) for line in found] == [
        (1, "completed"),
        (2, "invalid"),
    ]
    assert (found[0]["custom_id"], found[0]["task_id"]) == ("a", done.public_id)
    assert found[0]["result"]["url"].startswith("http://files.test/files/")
    assert [problem["code"] for problem in found[1]["problems"]] == ["blank"]
    for line in found:
        models.BatchResult.model_validate(line)


def test_the_row_of_a_task_deleted_while_it_runs_goes_on_until_it_has_stopped(bench: Bench) -> None:
    batch_id = confirmed(bench, "a ball")
    job = bench.claim()
    bench.client.delete(f"/v1/t2v/tasks/{job.public_id}")

    (row,) = get(bench, batch_id, "/rows")["data"]
    assert (row["status"], row["task_id"], row["prompt"]) == ("processing", None, None)
    assert counts(get(bench, batch_id)) == {"total": 1, "processing": 1}
    bench.settle(job, jobs.Cancelled())

    (row,) = get(bench, batch_id, "/rows")["data"]
    assert row["status"] == "cancelled"


def test_an_erased_task_leaves_its_row_without_anything_of_it(bench: Bench) -> None:
    batch_id = confirmed(bench, "a secret prompt")
    bench.settle(bench.claim(), jobs.Succeeded(result=make_result()))
    task_id = get(bench, batch_id, "/rows")["data"][0]["task_id"]

    bench.client.delete(f"/v1/t2v/tasks/{task_id}")

    (row,) = get(bench, batch_id, "/rows")["data"]
    assert (row["status"], row["task_id"], row["prompt"]) == ("completed", None, None)
    assert "secret" not in bench.client.get(f"{BATCHES}/{batch_id}/results").text


def test_another_tenants_batch_is_not_there(bench: Bench) -> None:
    batch_id = confirmed(bench, "red")
    other = bench.other()
    path = f"{BATCHES}/{batch_id}"

    answers = [
        other.get(path),
        other.get(f"{path}/rows"),
        other.get(f"{path}/results"),
        other.get(f"{path}/archive"),
        other.delete(path),
        *(other.post(f"{path}/{name}") for name in ("confirm", "pause", "resume", "cancel")),
        other.post(f"{path}/rerun-failed"),
    ]

    assert {answer.status_code for answer in answers} == {404}
    assert other.get(BATCHES).json()["data"] == []


def test_an_unknown_status_of_rows_is_refused_with_those_there_are(bench: Bench) -> None:
    doc = create(bench, {"prompt": "red"})

    answer = bench.client.get(f"{BATCHES}/{doc['batch_id']}/rows", params={"status": "done"})

    assert answer.status_code == 422
    assert "completed" in answer.json()["errors"][0]["message"]


def test_results_of_many_rows_are_all_there(bench: Bench) -> None:
    batch_id = confirmed(bench, *(f"red {n}" for n in range(250)))
    post(bench, batch_id, "cancel")

    assert [line["line"] for line in lines(bench, batch_id)] == list(range(1, 251))


def test_the_archive_holds_every_finished_clip_and_says_what_became_of_the_rest(
    bench: Bench,
) -> None:
    doc = create(bench, {"custom_id": "a", "prompt": "red"}, {"prompt": ""}, {"prompt": "blue"})
    post(bench, doc["batch_id"], "confirm")
    deliver(bench, bench.claim())
    bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="it is black"))

    answer = bench.client.get(f"{BATCHES}/{doc['batch_id']}/archive")

    assert answer.headers["content-type"] == "application/zip"
    assert f'filename="{doc["batch_id"]}.zip"' in answer.headers["content-disposition"]
    packed = zipfile.ZipFile(io.BytesIO(answer.content))
    manifest = json.loads(packed.read("manifest.json"))
    assert packed.read("clips/00001-a.mp4") == CONTENTS["video"]
    assert (manifest["batch_id"], manifest["state"]) == (doc["batch_id"], "completed")
    assert [(row["status"], row["error_code"]) for row in manifest["rows"]] == [
        ("completed", None),
        ("invalid", "blank"),
        ("failed", "bad_output"),
    ]


def test_an_unchanged_batch_is_told_so(bench: Bench) -> None:
    batch_id = confirmed(bench, "red")
    etag = bench.client.get(f"{BATCHES}/{batch_id}").headers["ETag"]

    same = bench.client.get(f"{BATCHES}/{batch_id}", headers={"If-None-Match": etag})
    bench.claim()
    other = bench.client.get(f"{BATCHES}/{batch_id}", headers={"If-None-Match": etag})

    assert (same.status_code, other.status_code) == (304, 200)


def test_answers_fit_their_schemas(bench: Bench) -> None:
    verdict = create(bench, {"prompt": "red"}, {"prompt": ""})
    models.BatchVerdict.model_validate(verdict)
    for action in ("confirm", "pause", "resume", "cancel"):
        models.Batch.model_validate(post(bench, verdict["batch_id"], action).json())
    models.Batch.model_validate(get(bench, verdict["batch_id"]))
    models.BatchRowPage.model_validate(get(bench, verdict["batch_id"], "/rows"))
    models.BatchPage.model_validate(bench.client.get(BATCHES).json())


def test_the_end_of_a_checked_batch_is_foreseen_once_such_a_clip_was_made(bench: Bench) -> None:
    unknown = create(bench, {"prompt": "red"})["eta_finish"]
    bench.generate(prompt="red", resolution="480p", duration=3.0)
    job = bench.claim()
    bench.clock.advance(10)
    bench.settle(job, jobs.Succeeded(result=make_result(timings_s={"denoising": 10.0})))
    bench.clock.advance(2)  # what was read lately is read anew
    few = create(bench, {"prompt": "red"})["eta_finish"]
    many = create(bench, *({"prompt": f"red {n}"} for n in range(50)))["eta_finish"]

    assert unknown is None
    assert 0 < few["p50"] < many["p50"]
    assert [job.state for job in stored(bench)] == [JobState.SUCCEEDED]
