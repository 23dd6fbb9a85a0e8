"""A random-weights pipeline of Wan2.2's shape, made from configs alone: real code, 0.1 s a clip.

Tests that ask how Vidmill behaves, not what it draws, use it instead of the trained tiny model:

    profile = build_tiny_random(tmp_path / "model")          # in this process
    env = tiny_random_env(folder)                            # for real processes: VIDMILL_PROFILE

Building takes 0.2 s after torch's imports; `tiny_random_folder` does it once per test run.
"""

import fcntl
import sys
from pathlib import Path
from typing import Any

import pytest

from vidmill.domain.profile import ModelProfile
from vidmill.profiles import load_profile

PROFILE_FILE = "tiny-random.toml"

_PROFILE = """\
title = "Random weights (tests only)"
source = {source!r}
revision = "0"
licence = "Apache-2.0"
is_toy = true
languages = ["en"]
native_fps = 4
frame_stride = 4
steps = 4
guidance_scale = 3.0
guidance_scale_2 = 2.0
flow_shift = 3.0
boundary_ratio = 0.875
max_text_tokens = 16
dtype = "float32"
vae_dtype = "float32"
layouts = ["resident"]
attention = ["native"]
cpu_threads = 1
seconds_per_step = 0.02
default_negative_prompt = ""
has_prompt_rules = false
[sizes]
480p = [80, 48]
720p = [80, 48]
[parts.transformer]
num_layers = 2
num_attention_heads = 2
attention_head_dim = 16
ffn_dim = 64
in_channels = 4
patch_size = [1, 2, 2]
[parts.transformer_2]
num_layers = 2
num_attention_heads = 2
attention_head_dim = 16
ffn_dim = 64
in_channels = 4
[parts.text_encoder]
d_model = 16
[parts.vae]
z_dim = 4
"""


def build_tiny_random(folder: Path, *, seed: int = 0) -> ModelProfile:
    """Write a diffusers folder and its profile (`tiny-random.toml`, beside model_index.json)."""
    _pipeline(seed).save_pretrained(folder)
    index = folder / "model_index.json"  # the name that older versions of transformers know as well
    index.write_text(index.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    profile_file = folder / PROFILE_FILE
    profile_file.write_text(_PROFILE.format(source=str(folder.absolute())), "utf-8")
    return load_profile(str(profile_file))


def tiny_random_env(folder: Path) -> dict[str, str]:
    """Return the settings with which real processes use the model in *folder*."""
    return {"VIDMILL_PROFILE": str(folder / PROFILE_FILE), "VIDMILL_MODEL_PATH": str(folder)}


def shared_tiny_random(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Return a folder built once per test run, whichever xdist process asks first.

    Call it from a session fixture; copy the folder before damaging it.
    """
    base = tmp_path_factory.getbasetemp()
    root = base if worker_id == "master" else base.parent
    folder = root / "tiny-random"
    with (root / "tiny-random.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / PROFILE_FILE).is_file():
            build_tiny_random(folder)
    return folder


def _pipeline(seed: int) -> Any:
    import vidmill.engines  # noqa: F401, I001  # before torch: it sets how OpenMP waits
    import diffusers
    import torch
    import transformers
    from diffusers import (
        AutoencoderKLWan,
        UniPCMultistepScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer(max_tokens=16)
    text_encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer),
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=2,
            is_encoder_decoder=False,
            pad_token_id=0,
            eos_token_id=1,
        )
    )
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    experts = [
        WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            text_dim=16,
            freq_dim=32,
            ffn_dim=64,
            num_layers=2,
            rope_max_seq_len=64,
        )
        for _ in range(2)
    ]
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        scheduler=scheduler,
        transformer=experts[0],
        transformer_2=experts[1],
        boundary_ratio=0.875,
    ).to(torch.float16)


def byte_tokenizer(max_tokens: int) -> Any:
    """256 byte tokens and 3 specials: no training, any language, never an unknown token."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "</s>", "<unk>", *alphabet]
    vocabulary = {token: number for number, token in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=max_tokens,
        padding_side="right",
    )


if __name__ == "__main__":
    build_tiny_random(Path(sys.argv[1]))
