"""Files by signed link, and by task with a key."""

import hashlib

import pytest

from tests.desks import Bench, finish, path_of

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""

CONTENT = bytes(range(256)) * 40


def link(bench: Bench, task_id: str) -> str:
    url = bench.client.get(f"/v1/t2v/result/{task_id}").json()["result_url"]
    return path_of(str(url))


def test_a_link_needs_no_key_and_gives_the_bytes(bench: Bench) -> None:
    task_id = finish(bench, CONTENT)

    answer = bench.stranger().get(link(bench, task_id))

    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(CONTENT).digest()
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-disposition"] == f'inline; filename="{task_id}-video.mp4"'


@pytest.mark.parametrize(
    ("wanted", "status", "part", "content_range"),
    [
        ("bytes=0-99", 206, CONTENT[:100], "bytes 0-99/10240"),
        ("bytes=100-", 206, CONTENT[100:], "bytes 100-10239/10240"),
        ("bytes=-7", 206, CONTENT[-7:], "bytes 10233-10239/10240"),
        ("bytes=10239-99999", 206, CONTENT[-1:], "bytes 10239-10239/10240"),
        ("bytes=0-1,5-6", 200, CONTENT, None),
        ("pages=1-2", 200, CONTENT, None),
    ],
)
def test_a_browser_can_seek(
    bench: Bench, wanted: str, status: int, part: bytes, content_range: str | None
) -> None:
    path = link(bench, finish(bench, CONTENT))

    answer = bench.stranger().get(path, headers={"Range": wanted})

    assert (answer.status_code, answer.content) == (status, part)
    assert answer.headers.get("content-range") == content_range
    assert answer.headers["content-length"] == str(len(part))


def test_a_range_behind_the_end_is_416_and_tells_the_size(bench: Bench) -> None:
    path = link(bench, finish(bench, CONTENT))

    answer = bench.stranger().get(path, headers={"Range": "bytes=10240-"})

    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */10240"


def test_head_tells_size_and_type_without_the_bytes(bench: Bench) -> None:
    path = link(bench, finish(bench, CONTENT))

    answer = bench.stranger().head(path)

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "10240"
    assert answer.headers["accept-ranges"] == "bytes"


def test_a_known_file_is_not_sent_again(bench: Bench) -> None:
    path = link(bench, finish(bench, CONTENT))
    etag = bench.stranger().get(path).headers["ETag"]

    answer = bench.stranger().get(path, headers={"If-None-Match": etag})

    assert (answer.status_code, answer.content) == (304, b"")


def test_a_part_of_another_version_is_not_mixed_in(bench: Bench) -> None:
    path = link(bench, finish(bench, CONTENT))
    etag = bench.stranger().get(path).headers["ETag"]

    same = bench.stranger().get(path, headers={"Range": "bytes=0-1", "If-Range": etag})
    other = bench.stranger().get(path, headers={"Range": "bytes=0-1", "If-Range": '"old"'})

    assert (same.status_code, other.status_code) == (206, 200)


def test_a_link_dies_when_its_time_is_up(bench: Bench) -> None:
    path = link(bench, finish(bench))
    bench.clock.advance(bench.app.settings.link_ttl_s)

    answer = bench.stranger().get(path)

    assert (answer.status_code, answer.json()["code"]) == (410, "result_expired")


def test_a_new_link_is_made_before_the_old_one_dies(bench: Bench) -> None:
    task_id = finish(bench)
    old = link(bench, task_id)
    bench.clock.advance(bench.app.settings.link_ttl_s - 1)

    new = link(bench, task_id)

    assert bench.stranger().get(old).status_code == 200
    assert new != old
    assert bench.stranger().get(new).status_code == 200


def test_a_link_opens_no_other_file(bench: Bench) -> None:
    one, other = finish(bench), finish(bench)
    path = link(bench, one)

    answer = bench.stranger().get(path.replace(one, other))

    assert (answer.status_code, answer.json()["code"]) == (403, "link_invalid")


@pytest.mark.parametrize(
    "path",
    [
        "/files/a",
        "/files/a?expires=1",
        "/files/../vidmill.db?expires=9&signature=0",
        "/files/%2e%2e/vidmill.db?expires=9999999999&signature=00",
        "/files/a%00b?expires=9999999999&signature=00",
        "/files/a?expires=9999999999&signature=%C3%BC",
        "/files/a?expires=soon&signature=00",
    ],
)
def test_a_link_nobody_signed_opens_nothing(bench: Bench, path: str) -> None:
    assert bench.stranger().get(path).status_code in {403, 404}


def test_a_deleted_file_is_not_found(bench: Bench) -> None:
    task_id = finish(bench)
    path = link(bench, task_id)
    bench.app.blobs.delete_prefix(task_id)

    assert bench.stranger().get(path).status_code == 404


@pytest.mark.parametrize(
    ("variant", "suffix"), [("video", "mp4"), ("poster", "jpg"), ("preview", "webp")]
)
def test_content_by_task_gives_each_file(bench: Bench, variant: str, suffix: str) -> None:
    path = f"/v1/t2v/tasks/{finish(bench, CONTENT)}/content"

    answer = bench.client.get(path, params={"variant": variant}, headers={"Range": "bytes=0-9"})

    assert (answer.status_code, answer.content) == (206, CONTENT[:10])
    assert suffix in answer.headers["content-disposition"]
    assert bench.client.head(path).headers["content-length"] == "10240"


def test_a_browser_saves_content_where_asked_to(bench: Bench) -> None:
    path = f"/v1/t2v/tasks/{finish(bench)}/content"

    answer = bench.client.get(path, params={"download": "1"})

    assert answer.headers["content-disposition"].startswith("attachment")


def test_content_of_a_live_task_is_not_there_yet(bench: Bench) -> None:
    path = f"/v1/t2v/tasks/{bench.generate()['task_id']}/content"

    assert bench.client.get(path).status_code == 404
    assert bench.client.get(path, params={"variant": "sound"}).status_code == 422


def test_content_of_a_cancelled_task_never_will_be(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    bench.client.post(f"/v1/t2v/tasks/{task_id}/cancel")

    assert bench.client.get(f"/v1/t2v/tasks/{task_id}/content").status_code == 409
