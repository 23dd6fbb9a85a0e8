"""Which files are a LoRA of this model, and what each refusal says."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.builders import make_spec
from tests.loras import NAMES, TINY_RANDOM, lora_tensors
from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import FieldProblem
from vidmill.domain.lora import (
    Lora,
    LoraFile,
    LoraUse,
    judge_name,
    judge_strength,
    judge_trigger_words,
    read_choice,
)
from vidmill.domain.lora_files import (
    FileFacts,
    Key,
    Pair,
    default_alpha,
    expert_linears,
    judge_pair,
    read_key,
)

BOTH: Mapping[str, Mapping[str, Any]] = {"high": TINY_RANDOM, "low": TINY_RANDOM}
Q = "transformer.blocks.0.attn1.to_q.lora_A.weight"
USE = LoraUse(name="acme", high="a" * 64, low="b" * 64, strength=0.8)


def make_lora(*, high: str, low: str) -> Lora:
    return Lora(
        id=1,
        name="acme",
        tenant_id=None,
        high=LoraFile(sha256=high, size_bytes=1),
        low=LoraFile(sha256=low, size_bytes=1),
        licence="own work",
        trigger_words=(),
        strength=1.0,
        rank=4,
        targets=20,
        architecture="wan-2x32x64",
        is_enabled=True,
        created_at=0.0,
    )


def facts(seed: int = 1, **changes: Any) -> FileFacts:
    tensors = lora_tensors(seed, **changes)
    return FileFacts(
        size_bytes=1,
        sha256="0" * 64,
        shapes={name: tensor.shape for name, tensor in tensors.items()},
        dtypes=dict.fromkeys(tensors, "F32"),
        metadata={},
    )


def judged(high: FileFacts, low: FileFacts | None = None, **limits: int) -> list[FieldProblem]:
    return judge_pair({"high": high, "low": low or facts()}, BOTH, **limits)[1]


@pytest.mark.parametrize("style", sorted(NAMES))
@pytest.mark.parametrize("alpha", [None, 2.0])
def test_a_pair_named_as_any_tool_does_is_sound(style: str, alpha: float | None) -> None:
    file = facts(style=style, alpha=alpha)
    pair, problems = judge_pair({"high": file, "low": facts()}, BOTH)

    assert (pair, problems) == (Pair(rank=4, targets=20), [])


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (Q, Key(module="blocks.0.attn1.to_q", part="down")),
        (
            "diffusion_model.blocks.39.ffn.2.lora_up.weight",
            Key(module="blocks.39.ffn.net.2", part="up"),
        ),
        (
            "lora_unet_blocks_7_cross_attn_o.alpha",
            Key(module="blocks.7.attn2.to_out.0", part="alpha"),
        ),
        (
            "base_model.model.blocks.3.ffn.net.0.proj.lora_B.default.weight",
            Key(module="blocks.3.ffn.net.0.proj", part="up"),
        ),
        ("diffusion_model.blocks.0.self_attn.norm_q.diff", None),
        ("diffusion_model.text_embedding.0.lora_down.weight", None),
        ("blocks.0.attn1.to_q.weight", None),
    ],
)
def test_names_of_tensors_are_read(name: str, key: Key | None) -> None:
    assert read_key(name) == key


def test_the_layers_of_an_expert_follow_from_its_config() -> None:
    linears = expert_linears(TINY_RANDOM)
    assert len(linears) == 2 * 10
    assert linears["blocks.1.ffn.net.0.proj"] == (64, 32)
    assert linears["blocks.0.attn2.to_out.0"] == (32, 32)


def without(file: FileFacts, name: str) -> FileFacts:
    return dataclasses.replace(file, shapes={k: v for k, v in file.shapes.items() if k != name})


def with_shape(file: FileFacts, name: str, *shape: int) -> FileFacts:
    return dataclasses.replace(file, shapes={**file.shapes, name: shape})


DAMAGES: Mapping[str, tuple[Callable[[FileFacts], FileFacts], str, str]] = {
    "a tensor of something else": (
        lambda f: with_shape(f, "vae.decoder.weight", 3, 3),
        "unknown_tensor",
        r"'vae.decoder.weight' \(1 such\) is no part",
    ),
    "weights of DoRA": (
        lambda f: with_shape(f, Q.replace("lora_A.weight", "dora_scale"), 32, 1),
        "unknown_tensor",
        r"dora_scale' \(1 such\) is of DoRA, which is not supported; save it as a plain LoRA",
    ),
    "changes of whole weights": (
        lambda f: with_shape(f, "diffusion_model.blocks.0.norm3.diff_b", 32),
        "unknown_tensor",
        "is of a change of whole weights, norms or biases, which is not supported",
    ),
    "a layer twice": (
        lambda f: with_shape(f, "diffusion_model.blocks.0.self_attn.q.lora_A.weight", 4, 32),
        "duplicate_tensor",
        "a second time",
    ),
    "a block that is not there": (
        lambda f: with_shape(f, Q.replace(".0.", ".2."), 4, 32),
        "wrong_model",
        "changes blocks.2.attn1.to_q, and the model has 2 blocks",
    ),
    "half of a layer": (lambda f: without(f, Q), "incomplete", "down matrix of blocks.0.attn1"),
    "nothing": (
        lambda f: dataclasses.replace(f, shapes={}, dtypes={}),
        "incomplete",
        "changes no layer",
    ),
    "another width": (
        lambda f: with_shape(f, Q, 4, 48),
        "wrong_shape",
        f"'{Q}' is 4 x 48, and 4 x 32 fits the model at rank 4",
    ),
    "two ranks": (lambda f: with_shape(f, Q, 8, 32), "wrong_shape", "of one rank"),
    "another type": (
        lambda f: dataclasses.replace(f, dtypes={**f.dtypes, Q: "I8"}),
        "wrong_dtype",
        f"'{Q}' is stored as I8; convert it to one of: F32, F16, BF16",
    ),
    "not a number": (
        lambda f: dataclasses.replace(f, not_finite=Q),
        "not_finite",
        f"'{Q}' holds NaN",
    ),
    "a variant": (
        lambda f: dataclasses.replace(
            f, metadata={"lora_adapter_metadata": '{"transformer.use_dora": true}'}
        ),
        "unsupported",
        "asks for use_dora",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_would_fail_on_a_gpu_is_refused_with_the_reason(damage: str) -> None:
    spoil, code, message = DAMAGES[damage]
    (first, *_) = judged(spoil(facts()))

    assert (first.pointer, first.code) == ("#/high", code)
    assert re.search(message, first.message)


def test_both_files_are_judged_at_once() -> None:
    pointers = {p.pointer for p in judged(without(facts(), Q), with_shape(facts(), Q, 4, 48))}
    assert pointers == {"#/high", "#/low"}


def test_one_file_is_judged_though_the_other_cannot_be_read() -> None:
    _, (problem,) = judge_pair({"low": with_shape(facts(), Q, 4, 48)}, BOTH)
    assert (problem.pointer, problem.code) == ("#/low", "wrong_shape")
    assert judge_pair({"low": facts()}, BOTH)[1] == []


def test_pairs_that_differ_in_one_file_have_versions_of_their_own() -> None:
    pairs = itertools.product("ab", "ab")
    versions = {make_lora(high=high * 64, low=low * 64).version for high, low in pairs}
    assert len(versions) == 4
    assert {len(version) for version in versions} == {8}


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("acme", {"name": "acme"}),
        ("acme:0.8", {"name": "acme", "strength": 0.8}),
        (" acme : 1 ", {"name": "acme", "strength": 1.0}),
    ],
)
def test_a_choice_is_a_name_with_or_without_a_strength(text: str, choice: dict[str, Any]) -> None:
    assert read_choice(text) == choice


@pytest.mark.parametrize("text", ["", " ", ":0.8", "acme:", "acme:strong", "acme:nan", "a:1:2"])
def test_a_choice_that_is_none_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"; write a(cme)? or a(cme)?:0.8$"):
        read_choice(text)


def test_a_rank_above_the_limit_is_refused() -> None:
    (problem, _) = judged(facts(rank=9), facts(rank=9), rank_max=8)
    assert (problem.code, problem.message) == ("max", "its rank is 9, the limit is 8; resize it")


@pytest.mark.parametrize(
    ("low", "message"),
    [
        (facts(rank=2), "its rank is 2, that of `high` 4"),
        (
            dataclasses.replace(
                facts(),
                shapes={n: s for n, s in facts().shapes.items() if ".0.attn1.to_q" not in n},
            ),
            "only one of the two files changes blocks.0.attn1.to_q",
        ),
    ],
)
def test_two_files_that_are_no_pair_are_refused(low: FileFacts, message: str) -> None:
    (problem,) = judged(facts(), low)
    assert problem.code == "not_a_pair"
    assert problem.message.startswith(message)


@pytest.mark.parametrize(
    ("text", "alpha"),
    [
        ('{"transformer.lora_alpha": 16, "transformer.r": 4, "transformer.alpha_pattern": {}}', 16),
        ('{"transformer.r": 4}', None),
    ],
)
def test_alpha_is_read_from_diffusers_metadata(text: str, alpha: float | None) -> None:
    assert default_alpha({"lora_adapter_metadata": text}) == alpha


@pytest.mark.parametrize("text", ["[1]", "{", '{"lora_alpha": "4"}', '{"lora_alpha": -1}'])
def test_metadata_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"its (metadata|lora_adapter_metadata)"):
        default_alpha({"lora_adapter_metadata": text})


@pytest.mark.parametrize("name", ["", "Acme", "-a", "a/b", "a" * 65, "ä"])
def test_a_name_that_is_no_name_is_refused(name: str) -> None:
    assert [p.code for p in judge_name(name)] == ["not_a_name"]


def test_names_may_have_dots_and_dashes() -> None:
    assert [*judge_name("acme-2026.summer_v2"), *judge_name("a")] == []


@pytest.mark.parametrize(
    ("strength", "codes"), [(0.8, []), (2.0, []), (0.0, ["min"]), (2.1, ["max"])]
)
def test_strength_is_more_than_nothing_and_at_most_two(strength: float, codes: list[str]) -> None:
    assert [p.code for p in judge_strength(strength)] == codes


@pytest.mark.parametrize("nan", [float("nan")])
def test_strength_that_is_no_number_is_refused(nan: float) -> None:
    assert [p.code for p in judge_strength(nan)] == ["max"]


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        (["acme style", "赤い"], []),
        (["a\nb"], ["not_a_name"]),
        ([" "], ["not_a_name"]),
        (["x" * 65], ["not_a_name"]),
        (["x"] * 9, ["max_items"]),
    ],
)
def test_trigger_words_are_few_short_and_printable(words: list[str], codes: list[str]) -> None:
    assert [p.code for p in judge_trigger_words(words)] == codes


def test_a_spec_without_a_lora_says_nothing_of_one_so_old_rows_and_keys_stand() -> None:
    old = make_spec().to_json()
    assert "lora" not in old
    assert ClipSpec.from_json(old) == make_spec()


def test_a_spec_with_a_lora_survives_its_row_and_has_a_key_of_its_own() -> None:
    spec = make_spec(lora=USE)
    assert ClipSpec.from_json(spec.to_json()) == spec
    weaker = make_spec(lora=dataclasses.replace(USE, strength=0.7))
    assert len({make_spec().cache_key(), spec.cache_key(), weaker.cache_key()}) == 3
