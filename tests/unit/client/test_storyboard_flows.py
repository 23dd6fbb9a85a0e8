"""Storyboards without a network: what a wait does, and what is put on the wire."""

from typing import Any

import pytest

from tests.unit.client.script import REFUSED, Script, ok
from vidmill.client import (
    Shot,
    StoryboardCancelled,
    StoryboardFailed,
    StoryboardUnfinished,
)
from vidmill.client._storyboard_flows import StoryboardsFlows


def flows(script: Script) -> StoryboardsFlows:
    return StoryboardsFlows(script.flows())


def board(state: str, **fields: Any) -> dict[str, Any]:
    return {"storyboard_id": "sb_1", "state": state, **fields}


def test_a_wait_reports_each_change_once_over_a_restart() -> None:
    same = board("rendering", progress=0.5)
    script = Script(
        [ok(same), ok(same), *[REFUSED] * 5, ok(board("joining")), ok(board("completed"))]
    )

    done = script.run(flows(script).wait("sb_1", None))

    assert [news.state for news in script.reported] == ["rendering", "joining", "completed"]
    assert done.is_over


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (board("failed", error={"code": "shot_missing", "message": "shot 2"}), "shot 2"),
        (board("cancelled"), "cancelled"),
    ],
)
def test_a_wait_for_what_will_never_be_says_why(end: dict[str, Any], said: str) -> None:
    script = Script([ok(end)])

    with pytest.raises(StoryboardFailed, match=said) as caught:
        script.run(flows(script).wait("sb_1", None))

    assert caught.value.storyboard.state == end["state"]
    assert isinstance(caught.value, StoryboardCancelled) is (end["state"] == "cancelled")


def test_a_wait_ends_in_time_and_the_storyboard_goes_on() -> None:
    script = Script([ok(board("rendering"))] * 3)

    with pytest.raises(StoryboardUnfinished, match="goes on") as caught:
        script.run(flows(script).wait("sb_1", 2.0))

    assert (script.now, caught.value.storyboard.state) == (2.0, "rendering")


def test_a_prompt_alone_is_a_shot_and_what_is_not_said_is_not_sent() -> None:
    script = Script([ok(board("rendering"))])

    shots: list[Shot] = ["a", {"prompt": "b", "crossfade": 0.5}]
    script.run(flows(script).create(shots, {"name": None, "resolution": "480p"}))

    (asked,) = script.asked
    assert asked.body == {
        "shots": [{"prompt": "a"}, {"prompt": "b", "crossfade": 0.5}],
        "resolution": "480p",
    }
