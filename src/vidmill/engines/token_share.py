"""How diffusers' transformers are divided among ranks: each computes a share of the tokens.

This is Ulysses context parallelism (https://arxiv.org/abs/2309.14509). Around self-attention the
ranks trade tokens for heads, so that each attends to the whole clip with its share of the heads.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional

from vidmill.domain.errors import ModelInvalid
from vidmill.domain.profile import ModelProfile


@dataclass(frozen=True, kw_only=True)
class Place:
    """One rank's place in its group.

    Attributes:
        rank: 0 is the one that decodes.
        ranks: How many there are.
    """

    rank: int
    ranks: int


class TokenShare:
    """Divides transformers among the ranks, by diffusers' context parallel hooks.

    Two things are done here rather than by `enable_parallelism` (0.42.1): it cannot be called
    without a GPU (it divides by the number of them), and it joins uneven shares by a gather of
    tensors of several sizes, which gloo refuses.
    """

    def __init__(self, place: Place, device: torch.device) -> None:
        from diffusers import ContextParallelConfig
        from diffusers.models._modeling_parallel import ParallelConfig

        mesh = dist.device_mesh.init_device_mesh(
            device.type, (1, place.ranks), mesh_dim_names=("ring", "ulysses")
        )
        self._ranks = place.ranks
        self._config: Any = ContextParallelConfig(ulysses_degree=place.ranks, mesh=mesh)
        self._parallel: Any = ParallelConfig(context_parallel_config=self._config)
        self._parallel.setup(place.rank, place.ranks, device, mesh=mesh)
        self._tokens = 0

    def divide(self, expert: Any) -> None:
        """Have *expert*, the same on every rank, compute this rank's tokens and return all."""
        from diffusers.hooks.context_parallel import apply_context_parallel
        from diffusers.models.attention import AttentionModuleMixin

        for module in expert.modules():
            if isinstance(module, AttentionModuleMixin):
                module.processor._parallel_config = self._parallel  # noqa: SLF001
        plan = {name: split for name, split in expert._cp_plan.items() if name != "proj_out"}  # noqa: SLF001
        apply_context_parallel(expert, self._config, plan)
        self._agree_on_skipping(expert.blocks[0])
        expert.register_forward_pre_hook(self._count, with_kwargs=True)
        expert.proj_out.register_forward_hook(self._gather)

    def _count(self, expert: Any, _inputs: object, given: dict[str, Any]) -> None:
        """Take the number of tokens, and the way for uneven shares of them or of heads if need be.

        That way asks the ranks for their sizes in each attention, so it is not taken for nothing;
        and no compiler can follow it.
        """
        sides = zip(given["hidden_states"].shape[2:], expert.config.patch_size, strict=True)
        self._tokens = int(np.prod([side // patch for side, patch in sides]))
        is_uneven = any(n % self._ranks for n in (self._tokens, expert.config.num_attention_heads))
        self._config.ulysses_anything = is_uneven
        torch.compiler.set_stance("force_eager" if is_uneven else "default")

    def _agree_on_skipping(self, first_block: Any) -> None:
        """Have all ranks skip a step or none: diffusers' first-block cache asks its own tokens."""
        registry = getattr(first_block, "_diffusers_hook", None)
        hook = registry and registry.get_hook("fbc_leader_block_hook")
        if not hook:
            return

        def should_compute(residual: torch.Tensor) -> bool:
            before = hook.state_manager.get_state().head_block_residual
            if before is None:
                return True
            # In place of the change that this rank sees, that of the clip: the same number on all.
            changed, size = (residual - before).abs(), before.abs()
            mine = torch.stack([part.sum(dtype=torch.float32) for part in (changed, size)])
            everyone = [torch.empty_like(mine) for _ in range(self._ranks)]
            dist.all_gather(everyone, mine)
            change, whole = torch.stack(everyone).sum(0).tolist()
            return bool(change / whole > hook.threshold)

        hook._should_compute_remaining_blocks = should_compute  # noqa: SLF001

    def _gather(self, _module: nn.Module, _inputs: object, mine: torch.Tensor) -> torch.Tensor:
        """Put the shares `(1, tokens, channels)` of all ranks together, on each of them."""
        sizes = [len(share) for share in torch.arange(self._tokens).tensor_split(self._ranks)]
        padded = functional.pad(mine, (0, 0, 0, sizes[0] - mine.shape[1])).contiguous()
        shares = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(shares, padded)
        return torch.cat([s[:, :size] for s, size in zip(shares, sizes, strict=True)], dim=1)


def divisible(profile: ModelProfile) -> ModelProfile:
    """Return *profile* with those attention backends that can be divided."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    able = _AttentionBackendRegistry._supports_context_parallel  # noqa: SLF001
    kept = tuple(name for name in profile.attention if name in able)
    if not kept:
        raise ModelInvalid(
            f"none of {profile.name}'s attention backends {', '.join(profile.attention)} can be"
            " divided among devices; add `native`"
        )
    return dataclasses.replace(profile, attention=kept)


def refuse_few_heads(folder: Path, ranks: int) -> None:
    """Raise `ModelInvalid` where some rank would have no head to attend with.

    Heads that do not divide are filled up by diffusers with empty ones, on the last rank alone.
    """
    for part in ("transformer", "transformer_2"):
        config = json.loads((folder / part / "config.json").read_text("utf-8"))
        heads = config["num_attention_heads"]
        empty = -heads % ranks
        if empty >= (heads + empty) // ranks:
            raise ModelInvalid(
                f"{folder / part} has {heads} attention heads, too few for {ranks} devices; name"
                " fewer of them in VIDMILL_DEVICE"
            )
