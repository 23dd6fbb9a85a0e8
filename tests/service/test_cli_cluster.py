"""`vidmill serve`, `worker`, `migrate` and `admin`: what they refuse, and what they print."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.batches import confirmed, post
from tests.databases import Choice, bare_database, empty_database
from tests.desks import Bench, database_url
from vidmill.cli.app import run
from vidmill.services.access import find_caller, hash_key
from vidmill.store import migrate, postgres, sqlite
from vidmill.store.session import open_database


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Commands set up logging to the stderr of this test, which nobody may write to after it."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A migrated database that the environment names."""
    found = empty_database(tmp_path)
    monkeypatch.setenv("VIDMILL_DATABASE_URL", found)
    monkeypatch.setenv("VIDMILL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "80")
    return found


def printed(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    """Run a command that must succeed; return its JSON."""
    assert run([*command, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """Run a command that must fail; return what it said, on one line."""
    assert run(list(command)) != 0
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_migrate_brings_an_empty_database_up_and_finds_nothing_to_do_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = bare_database(tmp_path)
    monkeypatch.setenv("VIDMILL_DATABASE_URL", url)
    monkeypatch.setenv("VIDMILL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("VIDMILL_SIGNING_SECRET", "s")
    for command in ("serve", "worker"):
        assert "run `vidmill migrate`" in refused(capsys, command)
    assert run(["migrate"]) == 0
    assert f"→ {migrate.head()}" in capsys.readouterr().out
    assert migrate.current(url) == migrate.head()
    assert run(["migrate"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_database_of_a_newer_release_is_refused_with_the_remedy(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    statement = "UPDATE alembic_version SET version_num = '9999'"
    make_engine = {"sqlite": sqlite.make_engine, "postgresql": postgres.make_engine}
    with make_engine[Choice.kind](url).connect() as conn:
        conn.exec_driver_sql(statement)
    try:
        assert "run the newer release" in refused(capsys, "admin", "plan", "list")
    finally:
        with make_engine[Choice.kind](url).connect() as conn:
            conn.exec_driver_sql(statement.replace("9999", migrate.head()))


@pytest.mark.postgresql
def test_replica_of_a_shared_database_needs_a_signing_secret(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "VIDMILL_SIGNING_SECRET" in refused(capsys, "serve", "--port", "0")


def test_worker_class_without_routes_is_refused_with_the_remedy(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "worker", "--class", "gpu")
    assert "vidmill admin route set gpu" in said


def test_plan_is_made_and_changed_and_its_tenants_have_it(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--lane", "vip", "--pool", "vip", "--weight", "4", "--cap-running", "40")
    (made,) = printed(capsys, "admin", "plan", "set", "gold", *options)
    assert (made["plan"], made["lane"], made["pools"], made["weight"]) == (
        "gold",
        "vip",
        ["vip"],
        4.0,
    )
    printed(capsys, "admin", "tenant", "set", "acme", "--plan", "gold")
    (changed,) = printed(capsys, "admin", "plan", "set", "gold", "--cap-running", "7")
    assert (changed["weight"], changed["cap_running"]) == (4.0, 7)
    (acme,) = printed(capsys, "admin", "tenant", "list")
    assert (acme["tenant"], acme["plan"], acme["cap_running"]) == ("acme", "gold", 7)


def test_key_works_until_it_is_revoked(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "admin", "tenant", "set", "acme")
    made = printed(capsys, "admin", "key", "create", "acme", "--user", "ann")
    db = open_database(url)
    caller = find_caller(db, hash_key(made["api_key"]))
    assert caller is not None
    assert (caller.tenant, caller.user) == ("acme", "ann")
    (listed,) = printed(capsys, "admin", "key", "list", "acme")
    assert made["api_key"] not in json.dumps(listed)
    assert run(["admin", "key", "revoke", str(listed["id"])]) == 0
    assert find_caller(db, hash_key(made["api_key"])) is None
    db.close()


def test_key_may_do_less_and_not_for_ever(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "admin", "tenant", "set", "acme")
    options = ("--scope", "read", "--scope", "submit", "--expires-days", "30", "--name", "ci")
    made = printed(capsys, "admin", "key", "create", "acme", *options)
    (listed,) = printed(capsys, "admin", "key", "list", "acme")
    assert listed == {name: made[name] for name in listed}
    assert (listed["scopes"], listed["name"]) == (["read", "submit"], "ci")
    assert made["api_key"].startswith(listed["hint"])
    assert listed["expires"] > listed["made"]
    assert listed["used"] is None


def test_paused_clips_are_among_those_that_a_tenant_has_queued(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIDMILL_DATABASE_URL", database_url(bench.folder))
    batch_id = confirmed(bench, "one", "two")
    assert post(bench, batch_id, "pause").status_code == 200
    bench.generate()
    capsys.readouterr()  # the log of the bench, which no command has set up yet

    lines = {line["tenant"]: line for line in printed(capsys, "admin", "tenant", "list")}
    shown = {line["limit"]: line for line in printed(capsys, "admin", "tenant", "show", "default")}

    assert lines["default"]["queued"] == shown["queued"]["used"] == 3


def test_limits_are_set_shown_and_lifted(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--clips-per-day", "200", "--key-submits-per-min", "10")
    (made,) = printed(capsys, "admin", "plan", "set", "free", *options)
    assert made["limits"] == {"clips_per_day": 200, "key_submits_per_min": 10}
    printed(capsys, "admin", "tenant", "set", "acme", "--plan", "free")
    shown = {line["limit"]: line for line in printed(capsys, "admin", "tenant", "show", "acme")}
    assert (shown["daily"]["most"], shown["daily"]["used"]) == (200, 0)
    assert shown["queued"]["resets"] is None
    (lifted,) = printed(capsys, "admin", "plan", "set", "free", "--clips-per-day", "none")
    assert lifted["limits"] == {"key_submits_per_min": 10}


def test_routes_are_kept_in_their_order(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "admin", "route", "set", "std-gpu", "standard", "vip:20")
    (listed,) = printed(capsys, "admin", "route", "list")
    assert listed == {
        "class": "std-gpu",
        "pools": [
            {"pool": "standard", "min_wait_s": 0.0},
            {"pool": "vip", "min_wait_s": 20.0},
        ],
    }
    run(["admin", "route", "list"])
    assert "standard, vip after 20 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("plan", "set", "x", "--lane", "fast"), "'fast' is no lane"),
        (("tenant", "set", "x", "--plan", "nope"), "there is no plan 'nope'"),
        (("key", "create", "nobody"), "there is no tenant 'nobody'"),
        (("key", "revoke", "77"), "there is no key 77"),
        (("key", "revoke", "mine"), "there is no key mine"),
        (("key", "create", "default", "--scope", "all"), "'all' is no scope"),
        (("plan", "set", "x", "--clips-per-day", "-1"), "'-1' is no limit"),
        (("plan", "set", "x", "--clips-per-day", "9999999999"), "is no limit"),
        (("tenant", "show", "nobody"), "there is no tenant 'nobody'"),
        (("route", "set", "c", "vip:20"), "at least one pool without a wait"),
        (("route", "set", "c", "vip:soon"), "'vip:soon' is no route"),
    ],
)
def test_wrong_input_is_named_and_changes_nothing(
    url: str, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], said: str
) -> None:
    before = [printed(capsys, "admin", noun, "list") for noun in ("plan", "tenant", "route")]
    assert said in refused(capsys, "admin", *command)
    after = [printed(capsys, "admin", noun, "list") for noun in ("plan", "tenant", "route")]
    assert before == after
