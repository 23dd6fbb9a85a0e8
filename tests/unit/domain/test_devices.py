import pytest

from vidmill.domain.devices import devices_of


@pytest.mark.parametrize(
    ("names", "devices"),
    [
        ("auto", ("auto",)),
        ("cpu", ("cpu",)),
        ("cuda:3", ("cuda:3",)),
        ("cuda:0, cuda:2", ("cuda:0", "cuda:2")),
        ("cuda:0-3", ("cuda:0", "cuda:1", "cuda:2", "cuda:3")),
        ("cuda:4-5,cuda:0-1", ("cuda:4", "cuda:5", "cuda:0", "cuda:1")),
        ("cpu,cpu", ("cpu", "cpu")),
    ],
)
def test_a_word_names_devices_in_order(names: str, devices: tuple[str, ...]) -> None:
    assert devices_of(names) == devices


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("", "no device"),
        ("gpu0", "no device"),
        ("cuda:0-2", "3 devices cannot share a clip; name 1, 2, 4 or 8"),
        ("cuda:3-1", "0 devices"),
        ("cuda:0,cuda:0", "named once"),
        ("cuda:0,cpu", "by their numbers"),
        ("auto,auto", "by their numbers"),
        ("cuda,cuda", "by their numbers"),
    ],
)
def test_a_word_that_names_no_group_of_devices_is_refused_with_the_reason(
    names: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        devices_of(names)
