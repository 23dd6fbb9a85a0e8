"""How long clips took."""

from tests.builders import FakeClock, make_spec
from vidmill.domain.clip import Size
from vidmill.store import learning
from vidmill.store.learning import Durations
from vidmill.store.session import Database


def learn(
    db: Database, gpu_s: float, total_s: float, pool: str = "main", **changes: object
) -> None:
    spec = make_spec(**changes)
    db.write(lambda uow: learning.learn(uow, pool=pool, spec=spec, gpu_s=gpu_s, total_s=total_s))


def known(db: Database, pool: str = "main", **changes: object) -> Durations | None:
    spec = make_spec(**changes)
    return db.read(lambda conn: learning.durations(conn, spec, pool))


def test_nothing_is_known_of_a_shape_never_made(db: Database) -> None:
    learn(db, 10.0, 12.0)

    assert known(db, num_frames=17) is None
    assert known(db, steps=4) is None
    assert known(db, native=Size(160, 96)) is None
    assert known(db, profile="other") is None


def test_durations_are_those_of_the_shape_whatever_the_prompt(db: Database) -> None:
    for gpu_s in (10.0, 14.0, 12.0):
        learn(db, gpu_s, gpu_s + 2, prompt=f"made in {gpu_s}")

    assert known(db) == Durations(render_s=12.0, totals_s=(12.0, 14.0, 16.0))


def test_another_pool_is_asked_only_where_the_own_one_knows_nothing(db: Database) -> None:
    learn(db, 10.0, 11.0, pool="fast")
    assert known(db) == Durations(render_s=10.0, totals_s=(11.0,))

    learn(db, 50.0, 55.0)

    assert known(db) == Durations(render_s=50.0, totals_s=(55.0,))
    assert known(db, pool="fast") == Durations(render_s=10.0, totals_s=(11.0,))


def test_only_the_latest_durations_are_kept(db: Database, clock: FakeClock) -> None:
    for number in range(learning.KEPT + 10):
        learn(db, 1.0 + number, 100.0 + number)
        clock.advance(1)

    found = known(db)

    assert found is not None
    assert found.totals_s == tuple(100.0 + number for number in range(10, learning.KEPT + 10))
