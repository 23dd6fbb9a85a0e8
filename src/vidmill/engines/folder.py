"""Is this model folder whole, and is it the model its profile means? Asked without torch.

Read are the JSON files and the headers of the weights, in milliseconds; no weights. A folder that
passes can still hold wrong numbers (the fingerprint tells), but it loads.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vidmill.domain.errors import ModelInvalid
from vidmill.domain.profile import ModelProfile, Part
from vidmill.engines.hub import local_folder
from vidmill.engines.safetensors_header import Shape, read_shapes
from vidmill.profiles import all_profiles, resolve_source, revision_of

_ERRORS_SHOWN = 3
_RESTORE = "restore it from where the folder came from"
_WEIGHT_NAMES = ("diffusion_pytorch_model.safetensors", "model.safetensors")
_TOKENIZER_NAMES = ("tokenizer.json", "spiece.model")
_CLASSES = {
    "transformer": "WanTransformer3DModel",
    "transformer_2": "WanTransformer3DModel",
    "vae": "AutoencoderKLWan",
    "text_encoder": "UMT5EncoderModel",
}
PARTS = tuple(_CLASSES)
"""Folders of the parts that have weights."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with a model folder.

    Attributes:
        severity: `error`: it will not load, or not as this profile. `warning`: it will, but look.
        file: Path relative to the folder.
        problem: Ends the sentence that begins with the file's name.
        remedy: What to do about it.
    """

    severity: Literal["error", "warning"]
    file: str
    problem: str
    remedy: str = _RESTORE

    def __str__(self) -> str:
        return f"{self.file} {self.problem}; {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class ModelStatus:
    """One profile and what of it is on this machine.

    Attributes:
        source: A folder or a hub id.
        path: The folder, if there is one.
        is_installed: There is a folder and it has no error.
    """

    profile: ModelProfile
    source: str
    path: Path | None
    is_installed: bool
    size_bytes: int
    findings: tuple[Finding, ...]


def describe_models(profile_name: str = "", *, model_path: str = "") -> list[ModelStatus]:
    """Return the status of every shipped profile.

    Args:
        profile_name: The profile in use, whose source *model_path* overrides.
        model_path: A folder or hub id; empty = the profile's own.
    """
    return [
        describe_model(profile, model_path if profile.name == profile_name else "")
        for profile in all_profiles()
    ]


def describe_model(profile: ModelProfile, model_path: str = "") -> ModelStatus:
    """Return what is on this machine of *profile*, whose source *model_path* overrides.

    Of a profile whose model is on a server nothing is here, and nothing is looked for.
    """
    if profile.remote is not None:
        return ModelStatus(
            profile=profile,
            source=profile.remote.url or "VIDMILL_REMOTE_URL",
            path=None,
            is_installed=False,
            size_bytes=0,
            findings=(),
        )
    source = resolve_source(profile, model_path)
    path = local_folder(source, revision_of(profile, source))
    findings = [] if path is None else [*check_folder(profile, path), *_check_pair(profile)]
    return ModelStatus(
        profile=profile,
        source=source,
        path=path,
        is_installed=path is not None and all(f.severity != "error" for f in findings),
        size_bytes=0 if path is None else _size_bytes(path),
        findings=tuple(findings),
    )


def require_sound(profile: ModelProfile, path: Path) -> None:
    """Raise `ModelInvalid` with the first errors of `check_folder`, if there are any."""
    errors = [str(f) for f in check_folder(profile, path) if f.severity == "error"]
    if errors:
        shown, more = errors[:_ERRORS_SHOWN], len(errors) - _ERRORS_SHOWN
        ending = f" (and {more} more)" if more > 0 else ""
        raise ModelInvalid(f"model folder {path}: {'. '.join(shown)}{ending}")


def check_folder(profile: ModelProfile, path: Path) -> list[Finding]:
    """Return everything wrong with the diffusers folder at *path* as a home of *profile*."""
    index, findings = _read_json(path, "model_index.json")
    if index is None:
        return findings
    findings += _check_index(index)
    configs: dict[str, Mapping[str, Any]] = {}
    for part in _parts(profile):
        config, problems = _read_json(path, f"{part.folder}/config.json")
        findings += problems
        if config is None:
            continue
        configs[part.folder] = config
        findings += _check_config(part, config)
        shapes, problems = _read_weights(path, part.folder)
        findings += problems
        if not problems:
            findings += _check_shapes(part.folder, config, shapes)
    findings += _check_tokenizer(path)
    findings += _check_geometry(profile, configs)
    return findings


def read_part(path: Path, folder: str) -> tuple[Mapping[str, Any], Mapping[str, Shape]]:
    """Return the configuration and the tensors' shapes of one part of the diffusers folder *path*.

    Raises:
        ModelInvalid: They cannot be read; the message names the file.
    """
    config, problems = _read_json(path, f"{folder}/config.json")
    shapes, more = _read_weights(path, folder)
    if problems or more:
        raise ModelInvalid(f"model folder {path}: {[*problems, *more][0]}")
    return config or {}, shapes


def _check_pair(profile: ModelProfile) -> Iterator[Finding]:
    """Say what the distilled pair of *profile* lacks; a worker that loads it asks for itself."""
    if (pair := profile.distilled) is None:
        return
    folder = local_folder(pair.source, pair.revision)
    for name in (pair.high, pair.low):
        file = f"{pair.source}/{name}"
        if folder is None and not Path(pair.source).is_absolute():
            problem, remedy = "is not on this machine", "the first start downloads it"
            yield Finding(severity="warning", file=file, problem=problem, remedy=remedy)
            continue
        try:
            read_shapes(Path(folder or pair.source) / name)
        except FileNotFoundError:
            yield Finding(severity="error", file=file, problem="is missing")
        except (OSError, ValueError) as error:
            yield Finding(severity="error", file=file, problem=str(error))


def weight_files(path: Path, folder: str) -> list[Path]:
    """Return the files of one part's weights: one, or the shards of its index."""
    for name in _WEIGHT_NAMES:
        if (path / folder / f"{name}.index.json").is_file():
            index, _ = _read_json(path, f"{folder}/{name}.index.json")
            shards = (index or {})["weight_map"].values()
            return [path / folder / shard for shard in sorted(set(shards))]
        if (path / folder / name).is_file():
            return [path / folder / name]
    return []


def _parts(profile: ModelProfile) -> list[Part]:
    wanted = {part.folder: part for part in profile.parts}
    return [wanted.get(folder, Part(folder=folder, config={})) for folder in _CLASSES]


def _size_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _read_json(path: Path, file: str) -> tuple[dict[str, Any] | None, list[Finding]]:
    try:
        data = json.loads((path / file).read_text("utf-8"))
    except FileNotFoundError:
        return None, [Finding(severity="error", file=file, problem="is missing")]
    except (OSError, ValueError) as error:
        return None, [
            Finding(severity="error", file=file, problem=f"is not readable JSON: {error}")
        ]
    if not isinstance(data, dict):
        return None, [Finding(severity="error", file=file, problem="is not a JSON object")]
    return data, []


def _check_index(index: Mapping[str, Any]) -> Iterator[Finding]:
    wanted = {"_class_name": "WanPipeline"} | _CLASSES
    for key, name in wanted.items():
        found = index.get(key)
        found = found[-1] if isinstance(found, list) and found else found
        if found != name:
            yield Finding(
                severity="error",
                file="model_index.json",
                problem=f"says {key} is {found!r}, not {name}",
                remedy="choose a folder of a Wan2.2 text-to-video model in diffusers format",
            )


def _check_config(part: Part, config: Mapping[str, Any]) -> Iterator[Finding]:
    for key, wanted in part.config.items():
        if config.get(key) != wanted:
            yield Finding(
                severity="error",
                file=f"{part.folder}/config.json",
                problem=f"has {key} = {config.get(key)!r}, the profile wants {wanted!r}",
                remedy="choose the profile made for this folder, or another folder",
            )


def _read_weights(path: Path, folder: str) -> tuple[dict[str, Shape], list[Finding]]:
    """Return tensor shapes of a part, from one file or from the shards of its index."""
    for name in _WEIGHT_NAMES:
        if (path / folder / f"{name}.index.json").is_file():
            return _read_shards(path, f"{folder}/{name}.index.json")
        if (path / folder / name).is_file():
            return _read_file(path, f"{folder}/{name}")
    missing = f"{folder}/{_WEIGHT_NAMES[folder == 'text_encoder']}"
    return {}, [Finding(severity="error", file=missing, problem="is missing")]


def _read_file(path: Path, file: str) -> tuple[dict[str, Shape], list[Finding]]:
    try:
        return read_shapes(path / file), []
    except FileNotFoundError:
        return {}, [Finding(severity="error", file=file, problem="is missing")]
    except (OSError, ValueError) as error:
        return {}, [Finding(severity="error", file=file, problem=str(error))]


def _read_shards(path: Path, index_file: str) -> tuple[dict[str, Shape], list[Finding]]:
    index, findings = _read_json(path, index_file)
    places = (index or {}).get("weight_map")
    if not isinstance(places, dict):
        no_map = Finding(severity="error", file=index_file, problem="has no weight_map")
        return {}, findings or [no_map]
    shapes: dict[str, Shape] = {}
    for shard in sorted(set(places.values())):
        file = f"{index_file.rpartition('/')[0]}/{shard}"
        found, problems = _read_file(path, file)
        findings += problems
        lacking = [key for key, place in places.items() if place == shard and key not in found]
        if lacking and not problems:
            lacks = f"lacks {lacking[0]}, which the index puts there"
            findings.append(Finding(severity="error", file=file, problem=lacks))
        shapes |= found
    return shapes, findings


def _check_shapes(
    folder: str, config: Mapping[str, Any], shapes: Mapping[str, Shape]
) -> Iterator[Finding]:
    """Compare with the config those tensors that prove it, and the blocks with one another."""
    expect, blocks_key, count_key = _PROOFS[_CLASSES[folder]]

    def finding(problem: str) -> Finding:
        return Finding(severity="error", file=f"{folder}/config.json", problem=problem)

    try:
        expected = expect(config)
    except (KeyError, TypeError) as error:
        yield finding(f"lacks or garbles an entry: {error}")
        return
    for names, shape in expected.items():
        found = next((shapes[name] for name in names.split("|") if name in shapes), None)
        if found != shape:
            yield finding(f"means {names} to be {shape}, the weights have {found}")
    if count_key:
        yield from map(finding, _uneven_blocks(shapes, blocks_key, config[count_key]))


def _uneven_blocks(shapes: Mapping[str, Shape], prefix: str, count: int) -> Iterator[str]:
    blocks: dict[int, dict[str, Shape]] = {}
    pattern = re.compile(rf"{re.escape(prefix)}(\d+)\.(.+)")
    for name, shape in shapes.items():
        if match := pattern.fullmatch(name):
            blocks.setdefault(int(match[1]), {})[match[2]] = shape
    if sorted(blocks) != list(range(count)):
        yield f"means {count} blocks {prefix}*, the weights have {len(blocks)}"
        return
    for number, block in blocks.items():
        if differing := block.items() ^ blocks[0].items():
            yield f"means equal blocks, but {prefix}{number} differs in {min(differing)[0]}"


def _expert_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    width = config["num_attention_heads"] * config["attention_head_dim"]
    patch = tuple(config["patch_size"])
    return {
        "patch_embedding.weight": (width, config["in_channels"], *patch),
        "condition_embedder.text_embedder.linear_1.weight": (width, config["text_dim"]),
        "proj_out.weight": (config["out_channels"] * math.prod(patch), width),
    }


def _vae_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    depth = config["z_dim"]
    width = (config.get("decoder_base_dim") or config["base_dim"]) * config["dim_mult"][0]
    return {
        "post_quant_conv.weight": (depth, depth, 1, 1, 1),
        "decoder.conv_out.weight": (config.get("out_channels", 3), width, 3, 3, 3),
    }


def _text_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    return {
        "shared.weight|encoder.embed_tokens.weight": (config["vocab_size"], config["d_model"]),
        "encoder.final_layer_norm.weight": (config["d_model"],),
    }


_PROOFS: dict[str, tuple[Callable[[Mapping[str, Any]], dict[str, Shape]], str, str]] = {
    "WanTransformer3DModel": (_expert_shapes, "blocks.", "num_layers"),
    "AutoencoderKLWan": (_vae_shapes, "", ""),
    "UMT5EncoderModel": (_text_shapes, "encoder.block.", "num_layers"),
}
"""By class: shapes that follow from the config (`|` parts the names of a tied tensor), what stands
before a block's number, and the config's key for the count."""


def _check_tokenizer(path: Path) -> Iterator[Finding]:
    present = [name for name in _TOKENIZER_NAMES if (path / "tokenizer" / name).is_file()]
    if not present:
        yield Finding(severity="error", file="tokenizer/tokenizer.json", problem="is missing")
    if "tokenizer.json" in present:
        yield from _read_json(path, "tokenizer/tokenizer.json")[1]


def _check_geometry(
    profile: ModelProfile, configs: Mapping[str, Mapping[str, Any]]
) -> Iterator[Finding]:
    """Say which sizes of the profile the networks cannot draw: diffusers would round them."""
    if not {"vae", "transformer"} <= configs.keys():
        return
    vae, patch = configs["vae"], configs["transformer"].get("patch_size", [1, 2, 2])
    unit = math.lcm(16, vae.get("scale_factor_spatial", 8) * patch[1])
    wrong = [
        str(s) for s in sorted(profile.native_sizes) if s.width_px % unit or s.height_px % unit
    ]
    stride = vae.get("scale_factor_temporal", 4)
    if profile.frame_stride % stride:
        wrong.append(f"{profile.frame_stride}k+1 frames")
    for what in wrong:
        yield Finding(
            severity="error",
            file="vae/config.json",
            problem=f"cannot draw {what} (units of {unit} pixels and {stride} frames)",
            remedy="correct the profile's sizes and frame_stride",
        )
