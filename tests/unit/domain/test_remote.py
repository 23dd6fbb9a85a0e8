import pytest

from vidmill.domain.remote import Cancel, Progress, Remote

LEAST = {"dialect": "json", "progress": "percent", "cancel": "no"}


def test_a_table_becomes_a_remote() -> None:
    remote = Remote.from_toml(
        {**LEAST, "omit": ["seconds"], "durations": [5, 10], "poll_s": [1, 2]}
    )
    assert (remote.progress, remote.cancel) == (Progress.PERCENT, Cancel.NO)
    assert (remote.omit, remote.durations, remote.poll_s) == (
        frozenset({"seconds"}),
        (5, 10),
        (1.0, 2.0),
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"progress": "guess"}, "guess"),
        ({"cancel": "maybe"}, "maybe"),
        ({"ulr": "http://x"}, "no key 'ulr'; it has .*url"),
        ({"poll_s": [2, 1]}, "poll_s"),
        ({"poll_s": [0, 1]}, "poll_s"),
    ],
)
def test_a_wrong_entry_is_named(change: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Remote.from_toml({**LEAST, **change})


def test_what_it_must_say_cannot_be_left_out() -> None:
    with pytest.raises(TypeError, match="cancel"):
        Remote.from_toml({"dialect": "json", "progress": "state"})
