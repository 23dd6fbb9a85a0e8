from dataclasses import replace

import pytest

from vidmill import wiring
from vidmill.engines import ENGINES
from vidmill.profiles import all_profiles, load_profile
from vidmill.settings import Settings


def test_every_shipped_profile_has_its_engine() -> None:
    paths = {wiring.engine_path(Settings(), profile) for profile in all_profiles()}
    assert paths == set(ENGINES.values())


def test_a_profile_with_an_engine_that_there_is_not_cannot_start() -> None:
    profile = replace(load_profile("tiny"), engine="steam")
    with pytest.raises(wiring.CannotStart, match=r"'steam'; there are .*wan"):
        wiring.engine_path(Settings(), profile)


def test_a_server_is_told_the_key_and_nothing_of_this_machine() -> None:
    settings = Settings.model_validate({"remote_url": "http://gpu7/v1", "remote_api_key": "k"})
    order = wiring.engine_order(settings, load_profile("remote-openai"))
    assert order == {"source": "http://gpu7/v1", "options": {"api_key": "k"}}


def test_the_profiles_own_server_is_used_unless_overridden() -> None:
    profile = load_profile("remote-dashscope")
    order = wiring.engine_order(Settings(), profile)
    assert profile.remote is not None
    assert order["source"] == profile.remote.url


def test_an_engine_of_this_machine_is_told_no_key() -> None:
    settings = Settings.model_validate({"remote_api_key": "k"})
    order = wiring.engine_order(settings, load_profile("tiny"))
    assert "k" not in order["options"].values()
