"""What clients of other APIs may call the model, and which sizes they may ask for."""

from dataclasses import replace

import pytest

from vidmill.api.desk import limits_of
from vidmill.api.dialects.served import check_model, model_names, offered_sizes
from vidmill.domain.clip import Aspect, Resolution
from vidmill.domain.errors import UnknownModel
from vidmill.profiles import load_profile
from vidmill.settings import Settings


def test_a_model_from_the_hub_is_known_by_its_hub_ids_too() -> None:
    assert model_names(load_profile("a14b-quality"), ["sora-2", "sora-2"]) == (
        "a14b-quality",
        "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
        "Wan-AI/Wan2.2-T2V-A14B",
        "wan2.2-t2v-a14b",
        "sora-2",
    )


def test_a_model_of_ours_is_known_by_its_name_alone() -> None:
    assert model_names(load_profile("tiny")) == ("tiny",)


def test_an_unknown_model_is_refused_with_those_that_are_known() -> None:
    check_model("tiny", ["tiny", "sora-2"])
    with pytest.raises(UnknownModel, match="'sora-3' here; ask for one of: tiny, sora-2"):
        check_model("sora-3", ["tiny", "sora-2"])


def test_sizes_are_those_that_operator_and_model_both_have() -> None:
    limits = replace(limits_of(Settings()), resolutions=(Resolution.P480,))
    profile = replace(load_profile("tiny"), shapes={})

    assert offered_sizes(limits, profile) == {
        "832x480": (Resolution.P480, Aspect.WIDE),
        "480x832": (Resolution.P480, Aspect.TALL),
    }
