"""Is this pair of files a LoRA for that model? Asked of their headers, so long before a GPU."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from vidmill.domain.errors import FieldProblem
from vidmill.domain.lora import SIDES, Side

RANK_MAX = 128
"""At that rank a file for all linear layers of A14B, in float16, is 1.2 GB."""

DTYPES = ("F32", "F16", "BF16")

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What a safetensors file says of itself, and what its bytes are.

    Attributes:
        not_finite: Name of a tensor that holds NaN or infinity, if one does.
    """

    size_bytes: int
    sha256: str
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str]
    not_finite: str | None = None


@dataclass(frozen=True, kw_only=True)
class Key:
    """What a tensor of a LoRA file is: a part of the adapter of one linear layer."""

    module: str
    part: Literal["down", "up", "alpha"]


def expert_linears(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return `(out, in)` of every linear layer in the blocks of an expert, by diffusers' name.

    Raises:
        KeyError: *config* does not say how large the expert is.
    """
    width = config["num_attention_heads"] * config["attention_head_dim"]
    inner = config["ffn_dim"]
    sizes = {
        **{f"{attention}.{part}": (width, width) for attention in _ATTENTIONS for part in _PARTS},
        "ffn.net.0.proj": (inner, width),
        "ffn.net.2": (width, inner),
    }
    return {
        f"blocks.{block}.{name}": size
        for block in range(config["num_layers"])
        for name, size in sizes.items()
    }


def architecture(config: Mapping[str, Any]) -> str:
    """Return a name for experts of one shape: a LoRA fits all of them, and no others.

    Raises:
        KeyError: As `expert_linears`.
    """
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return f"wan-{config['num_layers']}x{width}x{config['ffn_dim']}"


def read_key(name: str) -> Key | None:
    """Return what the tensor *name* is, as diffusers, peft, kohya and lightx2v name them, or None.

    Sources: diffusers `lora_conversion_utils._convert_non_diffusers_wan_lora_to_diffusers`, and
    files of musubi-tuner (`lora_unet_…`), diffusion-pipe and lightx2v (`diffusion_model.…`).
    """
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), None)
    if ending is None:
        return None
    found = _MODULE.fullmatch(name.removesuffix(ending))
    layer = _LAYERS.get(found["layer"]) if found else None
    if found is None or layer is None:
        return None
    return Key(module=f"blocks.{int(found['block'])}.{layer}", part=_ENDINGS[ending])


def default_alpha(metadata: Mapping[str, str]) -> float | None:
    """Return the alpha that diffusers' metadata gives a whole file; None = each layer's rank.

    Raises:
        ValueError: It asks for a variant of LoRA that is not computed here.
    """
    text = metadata.get("lora_adapter_metadata")
    if text is None:
        return None
    try:
        facts = {name.rpartition(".")[2]: value for name, value in json.loads(text).items()}
    except (ValueError, AttributeError) as error:
        raise ValueError("its lora_adapter_metadata is not a JSON object") from error
    for variant in ("use_rslora", "use_dora", "alpha_pattern", "rank_pattern"):
        if facts.get(variant):
            raise ValueError(f"its metadata asks for {variant}, which is not supported")
    alpha = facts.get("lora_alpha")
    if alpha is not None and not (isinstance(alpha, int | float) and 0 < alpha < math.inf):
        raise ValueError(f"its metadata gives lora_alpha as {alpha!r}, not a positive number")
    return None if alpha is None else float(alpha)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What two sound files have in common."""

    rank: int
    targets: int


def judge_pair(
    files: Mapping[Side, FileFacts],
    configs: Mapping[str, Mapping[str, Any]],
    *,
    rank_max: int = RANK_MAX,
) -> tuple[Pair, list[FieldProblem]]:
    """Return what *files* are, and everything that keeps them from being a pair for the experts.

    The first counts only if the second is empty and both files are there.
    """
    found: dict[Side, _File] = {}
    problems: list[FieldProblem] = []
    for side in files:
        found[side] = file = _File.read(files[side])
        told = file.problems(expert_linears(configs[side]), rank_max=rank_max)
        problems += [_problem(side, code, message) for code, message in told]
    if problems or len(found) < len(SIDES):
        return Pair(rank=0, targets=0), problems
    high, low = found["high"], found["low"]
    if high.rank != low.rank:
        message = f"its rank is {low.rank}, that of `high` {high.rank}; upload two files of one run"
        problems.append(_problem("low", "not_a_pair", message))
    elif high.modules != low.modules:
        odd = min(high.modules ^ low.modules)
        message = f"only one of the two files changes {odd}; upload two files of one run"
        problems.append(_problem("low", "not_a_pair", message))
    return Pair(rank=high.rank, targets=len(high.modules)), problems


@dataclass(frozen=True)
class _File:
    """A file's tensors by what they are."""

    facts: FileFacts
    tensors: Mapping[Key, str]
    strangers: tuple[str, ...]
    twice: tuple[str, ...]

    @classmethod
    def read(cls, facts: FileFacts) -> Self:
        tensors: dict[Key, str] = {}
        strangers, twice = [], []
        for name in sorted(facts.shapes):
            key = read_key(name)
            if key is None:
                strangers.append(name)
            elif key in tensors:
                twice.append(name)
            else:
                tensors[key] = name
        return cls(facts, tensors, tuple(strangers), tuple(twice))

    @property
    def modules(self) -> frozenset[str]:
        return frozenset(key.module for key in self.tensors)

    @property
    def rank(self) -> int:
        ranks = [shape[0] for key, shape in self._shapes if key.part == "down" and shape]
        return max(ranks, default=0)

    @property
    def _shapes(self) -> list[tuple[Key, Shape]]:
        return [(key, self.facts.shapes[name]) for key, name in self.tensors.items()]

    def problems(
        self, linears: Mapping[str, tuple[int, int]], *, rank_max: int
    ) -> Iterator[tuple[str, str]]:
        """Yield the code and the message of what is wrong, the first of each kind."""
        yield from self._wrong_names(linears)
        yield from self._wrong_numbers()
        if self.modules <= linears.keys():
            yield from self._wrong_shapes(linears)
        if self.rank > rank_max:
            yield "max", f"its rank is {self.rank}, the limit is {rank_max}; resize it"

    def _wrong_names(self, linears: Mapping[str, tuple[int, int]]) -> Iterator[tuple[str, str]]:
        if self.strangers:
            yield "unknown_tensor", _strange(self.strangers)
        if self.twice:
            yield "duplicate_tensor", f"{self.twice[0][:100]!r} names a layer a second time"
        if strange := sorted(self.modules - linears.keys()):
            blocks = 1 + max((int(name.split(".")[1]) for name in linears), default=-1)
            yield (
                "wrong_model",
                (
                    f"it changes {strange[0]}, and the model has {blocks} blocks; upload a LoRA"
                    " that was trained for this model"
                ),
            )
        whole = {(module, part) for module in self.modules for part in ("down", "up")}
        if lacking := sorted(whole - {(key.module, key.part) for key in self.tensors}):
            module, part = lacking[0]
            yield "incomplete", f"the {part} matrix of {module} is missing; restore the file"
        if not self.tensors:
            yield "incomplete", "it changes no layer at all; upload the LoRA's weights"

    def _wrong_numbers(self) -> Iterator[tuple[str, str]]:
        kinds = {dtype: name for name, dtype in self.facts.dtypes.items()}
        if strange := sorted(kinds.keys() - set(DTYPES)):
            name = kinds[strange[0]][:100]
            yield (
                "wrong_dtype",
                f"{name!r} is stored as {strange[0]}; convert it to one of: {', '.join(DTYPES)}",
            )
        if self.facts.not_finite is not None:
            name = self.facts.not_finite[:100]
            yield "not_finite", f"{name!r} holds NaN or infinity; the training went wrong"
        try:
            default_alpha(self.facts.metadata)
        except ValueError as error:
            yield "unsupported", f"{error}; save it as a plain LoRA"

    def _wrong_shapes(self, linears: Mapping[str, tuple[int, int]]) -> Iterator[tuple[str, str]]:
        rank = self.rank
        for key, shape in sorted(self._shapes, key=lambda item: item[0].module):
            outside, inside = linears[key.module]
            wanted = {"down": (rank, inside), "up": (outside, rank), "alpha": ()}[key.part]
            is_scalar = key.part == "alpha" and math.prod(shape) == 1
            if shape != wanted and not is_scalar:
                yield (
                    "wrong_shape",
                    (
                        f"{self.tensors[key][:100]!r} is {_shown(shape)}, and {_shown(wanted)} fits"
                        f" the model at rank {rank}; upload a LoRA of this model and of one rank"
                    ),
                )
                return


def _strange(names: Sequence[str]) -> str:
    """Return what is wrong with tensors that cannot be used, and whose they are if we know."""
    kind = next((kind for mark, kind in _VARIANTS.items() if mark in names[0]), None)
    is_what = f"is of {kind}, which is not supported" if kind else "is no part of a LoRA"
    return (
        f"{names[0][:100]!r} ({len(names)} such) {is_what}; save it as a plain LoRA of attention"
        " and feed-forward layers: lora_A/lora_B or lora_down/lora_up, and alpha"
    )


_VARIANTS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "lora_mid": "LoCon",
    ".diff": "a change of whole weights, norms or biases",
}
"""How other kinds of adapters name what plain LoRAs do not have."""

_ATTENTIONS = {"attn1": "self_attn", "attn2": "cross_attn"}
_PARTS = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "o"}


def _layer_names() -> Iterator[tuple[str, str]]:
    """Yield every name of a layer within its block, and diffusers' name for it."""
    for ours, theirs in _ATTENTIONS.items():
        for part, short in _PARTS.items():
            yield f"{ours}.{part}", f"{ours}.{part}"
            yield f"{theirs}.{short}", f"{ours}.{part}"
    yield from [("ffn.net.0.proj", "ffn.net.0.proj"), ("ffn.net.2", "ffn.net.2")]
    yield from [("ffn.0", "ffn.net.0.proj"), ("ffn.2", "ffn.net.2")]


_LAYERS: Mapping[str, str] = {
    spelling: name
    for theirs, name in _layer_names()
    for spelling in (theirs, theirs.replace(".", "_"))
}
_MODULE = re.compile(
    r"(?:base_model\.model\.|model\.)?"
    r"(?:transformer\.|transformer_2\.|diffusion_model\.|lora_unet_|lora_transformer_)?"
    r"blocks[._](?P<block>[0-9]{1,4})[._](?P<layer>[a-z0-9_.]+)"
)
_ENDINGS: Mapping[str, Literal["down", "up", "alpha"]] = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".alpha": "alpha",
}


def _shown(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _problem(field: str, code: str, message: str) -> FieldProblem:
    return FieldProblem(pointer=f"#/{field}", code=code, message=message)
