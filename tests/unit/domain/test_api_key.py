"""How keys look, and what a wrong letter does."""

import re

import pytest

from vidmill.domain.api_key import hint_of, id_named, is_mistyped, new_key, public_name


def test_key_has_the_documented_shape() -> None:
    assert re.fullmatch(r"vm_live_[A-Za-z0-9_-]{43}[A-Za-z0-9]{6}", new_key())


def test_no_two_keys_are_alike() -> None:
    assert len({new_key() for _ in range(100)}) == 100


def test_known_key_keeps_its_check() -> None:
    key = "vm_live_" + "A" * 43 + "42e26P"
    assert not is_mistyped(key)
    assert hint_of(key) == "vm_live_AAAA"


def test_every_wrong_letter_is_found() -> None:
    key = new_key()
    for place in range(len("vm_live_"), len(key)):
        wrong = "x" if key[place] != "x" else "y"
        assert is_mistyped(key[:place] + wrong + key[place + 1 :])


def test_swapped_letters_and_missing_ends_are_found() -> None:
    key = new_key()
    swapped = next(
        key[:place] + key[place + 1] + key[place] + key[place + 2 :]
        for place in range(10, 40)
        if key[place] != key[place + 1]
    )
    assert is_mistyped(swapped)
    assert is_mistyped(key[:-1])
    assert is_mistyped(key + "A")
    assert is_mistyped("vm_live_")


@pytest.mark.parametrize("key", ["vm_" + "a" * 43, "vm_test_key", "", "sk-123", "vm_live"])
def test_keys_of_older_releases_are_left_to_the_database(key: str) -> None:
    assert not is_mistyped(key)


@pytest.mark.parametrize(
    ("name", "key_id"),
    [
        ("key_12", 12),
        ("12", 12),
        ("key_2147483647", 2**31 - 1),
        ("key_2147483648", None),
        ("key_99999999999999999999", None),
        ("key_", None),
        ("", None),
        ("key_-1", None),
        ("key_\N{SUPERSCRIPT TWO}", None),
        ("key_key_1", None),
    ],
)
def test_name_of_a_key_says_its_id_or_nothing(name: str, key_id: int | None) -> None:
    assert id_named(name) == key_id


def test_public_name_leads_back_to_the_id() -> None:
    assert id_named(public_name(7)) == 7
