"""Turns at the write lock."""

from pathlib import Path

from vidmill.store.turnstile import PATIENCE_S, Turnstile


def test_lock_that_is_free_is_taken_at_the_first_try(tmp_path: Path) -> None:
    turnstile = Turnstile(tmp_path / "turn")
    assert turnstile.pass_through(lambda: True, timeout_s=0.0)
    turnstile.close()


def test_lock_that_stays_taken_is_given_up(tmp_path: Path) -> None:
    turnstile = Turnstile(tmp_path / "turn")
    assert not turnstile.pass_through(lambda: False, timeout_s=0.01)
    turnstile.close()


def test_who_waits_holds_the_turn_and_who_has_the_lock_gave_it_back(tmp_path: Path) -> None:
    first, second = Turnstile(tmp_path / "turn"), Turnstile(tmp_path / "turn")
    overtaken: list[bool] = []

    def seize() -> bool:
        overtaken.append(second.try_turn())
        return True

    assert first.pass_through(seize, timeout_s=1.0)
    assert (overtaken, second.try_turn()) == ([False], True)
    first.close()
    second.close()


def test_frozen_owner_of_the_turn_is_passed_over(tmp_path: Path) -> None:
    frozen, other = Turnstile(tmp_path / "turn"), Turnstile(tmp_path / "turn")
    assert frozen.try_turn()
    assert other.pass_through(lambda: True, timeout_s=PATIENCE_S / 10)
    frozen.close()
    other.close()
