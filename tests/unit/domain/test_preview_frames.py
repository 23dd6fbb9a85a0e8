import pytest

from vidmill.domain.preview_frames import preview_key, preview_steps


@pytest.mark.parametrize(
    ("num_steps", "expected"),
    [(40, (10, 20, 30)), (12, (3, 6, 9)), (4, (1, 2, 3)), (3, (1, 2)), (2, (1,)), (1, ())],
)
def test_pictures_are_taken_within_a_run_and_never_twice_at_a_step(
    num_steps: int, expected: tuple[int, ...]
) -> None:
    assert preview_steps(num_steps) == expected
    assert len({preview_key("t2v_0/1", step) for step in expected}) == len(expected)
