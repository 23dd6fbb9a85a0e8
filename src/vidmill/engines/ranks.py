"""Several processes, one device each, draw one clip: every rank computes a share of its tokens.

This is Ulysses context parallelism (https://arxiv.org/abs/2309.14509). Each rank holds all weights;
around self-attention the ranks trade tokens for heads, so that each attends to the whole clip with
its share of the heads. Noise and sampler are the same on all of them; rank 0 alone decodes.

The danger is an exchange that not all ranks come to: it never ends. So they stop before the same
block (`Lockstep`), and a rank that fails takes the others with it (`RankedEngine.generate`).
"""

import dataclasses
import json
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional

from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import EngineFailed, EngineOutOfMemory, JobCancelled, ModelInvalid
from vidmill.domain.job import Phase
from vidmill.domain.ports import Allocate, Frames, LoraFiles, Show, Watch
from vidmill.domain.profile import ModelProfile
from vidmill.engines.folder import require_sound
from vidmill.engines.hub import fetch_folder
from vidmill.engines.pipeline import choose_device, device_errors
from vidmill.engines.placement import AUTO
from vidmill.engines.pulse import BLOCKS_AHEAD, Pulse
from vidmill.engines.refusals import refuse_unsupported
from vidmill.engines.wan import WanEngine
from vidmill.telemetry import get_logger

log = get_logger(__name__)

_MARGIN_BLOCKS = BLOCKS_AHEAD + 2
"""How far ahead rank 0 places a stop. When a rank comes to block m, its device has finished block
m - BLOCKS_AHEAD - 1, in whose exchange rank 0 took part; the end of a step is one block further. So
no rank is past the stop when rank 0 writes it down, and none can come to it without seeing it."""

_UNWIND_S = 5.0
"""After an error here, how long the mates may take to end their part of the same clip. A block
lasts 0.2 s, so a rank that takes longer waits in an exchange for one that will not come."""

_EXCHANGE_LIMIT_S = 1800.0
"""How long an exchange may wait for the slowest rank: compiling a shape takes minutes. It is no
guard against a rank that is gone; the mates are watched for that."""


class Stop(Protocol):
    """A number that all ranks see at once; see `worker.channel.StopWord`."""

    def ask(self, number: int, /) -> None: ...

    def is_asked(self, number: int, /) -> bool: ...


class Mates(Protocol):
    """The processes of the other ranks, as rank 0 sees them; see `worker.mates`."""

    @property
    def ranks(self) -> int:
        """How many ranks the group has, rank 0 included."""
        ...

    @property
    def stop(self) -> Stop: ...

    @property
    def loss(self) -> Exception | None:
        """Why the group is of no use any more."""
        ...

    def start(self, source: str) -> None:
        """Start all of them; each loads the model in the folder *source*. Main thread only."""
        ...

    def tell(self, word: str, **fields: Any) -> bool:
        """Tell each of them; False: the group is lost."""
        ...

    def wait_for(self, word: str, *, within_s: float | None = None) -> bool:
        """Wait until each has said *word* since it was last told something; False: one will not."""
        ...

    def end(self) -> None:
        """Kill what is left of them. Idempotent."""
        ...


@dataclass(frozen=True, kw_only=True)
class Place:
    """One rank's place in its group.

    Attributes:
        rank: 0 is the one that decodes.
        ranks: How many there are.
    """

    rank: int
    ranks: int


class Lockstep:
    """Lets every rank stop one clip before the same block.

    Args:
        clip: Its number; with the number of the block it names a moment no other clip has, so that
            a stop of an earlier clip hits none that follows.
    """

    def __init__(self, stop: Stop, pulse: Pulse, clip: int) -> None:
        self._stop = stop
        self._pulse = pulse
        self._first = clip << 32

    def ask(self, *, within_blocks: int) -> None:
        """Have all ranks stop so many blocks from here. Rank 0 only, once."""
        self._stop.ask(self._first + self._pulse.blocks_done + within_blocks)

    def check(self) -> None:
        """Raise `JobCancelled` at the block that rank 0 chose."""
        if self._stop.is_asked(self._first + self._pulse.blocks_done):
            raise JobCancelled("stopped on request, on all ranks")


class LeadWatch:
    """Rank 0's watch: while it denoises, a cancel is first agreed upon; later it is obeyed."""

    def __init__(self, watch: Watch, lockstep: Lockstep, *, margin_blocks: int) -> None:
        self._watch = watch
        self._lockstep = lockstep
        self._margin_blocks = margin_blocks
        self._is_asked = self._is_alone = False

    def report(self, phase: Phase, done: int, total: int) -> None:
        self._is_alone = phase is Phase.DECODING
        self._watch.report(phase, done, total)

    def check(self) -> None:
        if self._is_alone:
            self._watch.check()
            return
        if not self._is_asked:
            try:
                self._watch.check()
            except JobCancelled:
                self._is_asked = True
                self._lockstep.ask(within_blocks=self._margin_blocks)
        self._lockstep.check()


class MateWatch:
    """The watch of every other rank, whose progress nobody asks for."""

    def __init__(self, lockstep: Lockstep) -> None:
        self.check = lockstep.check

    def report(self, phase: Phase, done: int, total: int) -> None: ...


class _Rank(WanEngine):
    """What all ranks have in common: they load the same folder and divide the experts."""

    def __init__(
        self,
        profile: ModelProfile,
        source: str,
        *,
        device: str,
        threads: int,
        layout: str = AUTO,
    ) -> None:
        profile = _divisible(profile)
        super().__init__(profile, source, device=device, threads=threads, layout=layout)

    def _join(self, store: Any, place: Place) -> None:
        """Meet the other ranks and divide the experts among them; returns when all are there."""
        device = choose_device(self._device_name)
        # All ranks are on this machine; names and other networks are none of their business.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
        with device_errors():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                store=store,
                rank=place.rank,
                world_size=place.ranks,
                timeout=timedelta(seconds=_EXCHANGE_LIMIT_S),
            )
            share = TokenShare(place, device)
            for expert in (self._model.pipe.transformer, self._model.pipe.transformer_2):
                share.divide(expert)
        log.info("rank_joined", rank=place.rank, ranks=place.ranks, device=str(device))

    def close(self) -> None:
        super().close()
        if dist.is_initialized():
            dist.destroy_process_group()


class RankedEngine(_Rank):
    """Rank 0, and the engine that its worker sees: see `domain.ports.Engine`.

    Args:
        mates: The processes of the other ranks, not yet started.
    """

    def __init__(
        self,
        profile: ModelProfile,
        source: str,
        *,
        device: str,
        threads: int,
        layout: str = AUTO,
        mates: Mates,
    ) -> None:
        super().__init__(profile, source, device=device, threads=threads, layout=layout)
        self._mates = mates
        self._clips = 0

    def load(self) -> None:
        if self._loaded is not None:
            return
        ranks = self._mates.ranks
        folder = fetch_folder(self._source, self._profile.revision)  # once, not by each rank
        require_sound(self._profile, folder)
        _refuse_few_heads(folder, ranks)
        self._source = str(folder)
        self._mates.start(self._source)
        super().load()
        self._expect("loaded")
        store = _store(ranks)
        self._tell("join", port=store.port, ranks=ranks)
        self._join(store, Place(rank=0, ranks=ranks))
        self._expect("joined")

    def generate(
        self,
        spec: ClipSpec,
        *,
        allocate: Allocate,
        watch: Watch,
        show: Show | None = None,
        lora: LoraFiles | None = None,
    ) -> Frames:
        """Render *spec* with all ranks; see the port.

        Raises:
            EngineFailed: One of the ranks failed or died. The group is of no use any more.
        """
        refuse_unsupported(self._profile, spec)
        with self._model.adapters.applied(spec.lora, lora):
            pass  # what does not fit is refused here, before the mates have begun
        watch.check()
        self._clips += 1
        paths = lora and {"high": str(lora.high), "low": str(lora.low)}
        self._tell("draw", clip=self._clips, spec=spec.to_json(), lora=paths)
        lockstep = Lockstep(self._mates.stop, self._model.pulse, self._clips)
        together = LeadWatch(watch, lockstep, margin_blocks=self._margin_blocks)
        try:
            frames = super().generate(spec, allocate=allocate, watch=together, show=show, lora=lora)
        except Exception as error:
            if self._mates.wait_for("drawn", within_s=_UNWIND_S):
                raise  # a cancel that all obeyed, or what befell this rank after their part
            loss = self._lost(error)
            if loss is error:
                raise
            raise loss from error
        self._expect("drawn")
        return frames

    def close(self) -> None:
        self._mates.end()
        super().close()

    @property
    def _margin_blocks(self) -> int:
        """A pass whose blocks a step cache skips has an exchange at its end, but none before."""
        skipped = len(self._model.pipe.transformer.blocks) if self._profile.step_cache else 0
        return _MARGIN_BLOCKS + skipped

    def _tell(self, word: str, **fields: Any) -> None:
        if not self._mates.tell(word, **fields):
            raise self._lost()

    def _expect(self, word: str) -> None:
        if not self._mates.wait_for(word):
            raise self._lost()

    def _lost(self, error: Exception | None = None) -> Exception:
        """End the group; return why, in the words of the rank that failed first."""
        reason = self._mates.loss or error
        self._mates.end()
        if isinstance(reason, EngineOutOfMemory):
            reason.is_poisonous = True  # memory is free again, but the ranks are out of step
        if isinstance(reason, EngineFailed | ModelInvalid):
            return reason
        return EngineFailed(f"the ranks came out of step: {reason!r}")


class MateEngine(_Rank):
    """Any other rank: denoises what rank 0 draws, and has nothing to show for it."""

    def join(self, port: int, place: Place) -> None:
        """Meet the other ranks at the *port* that rank 0 named; returns when all are there."""
        self._join(_store(place.ranks, port), place)

    def help(self, spec: ClipSpec, *, clip: int, stop: Stop, lora: LoraFiles | None) -> None:
        """Do this rank's part of *spec*; returns as well when all ranks were stopped."""
        watch = MateWatch(Lockstep(stop, self._model.pulse, clip))
        try:
            self.generate(spec, allocate=_no_memory, watch=watch, lora=lora)
        except JobCancelled:
            log.debug("rank_stopped", clip=clip)
        if choose_device(self._device_name).type == "cuda":
            with device_errors():
                torch.cuda.synchronize()  # what failed on the device is said now, not later

    def _decode(
        self,
        latents: torch.Tensor,  # noqa: ARG002
        spec: ClipSpec,  # noqa: ARG002
        *,
        allocate: Allocate,
        watch: Watch,  # noqa: ARG002
    ) -> Frames:
        return allocate((0, 0, 0, 3))


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


def _store(ranks: int, port: int = 0) -> Any:
    """Return where the ranks find one another; without a *port* it is opened at a free one."""
    make: Any = dist.TCPStore  # type: ignore[attr-defined]
    return make("127.0.0.1", port, ranks, is_master=not port, wait_for_workers=False)


def _divisible(profile: ModelProfile) -> ModelProfile:
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


def _refuse_few_heads(folder: Path, ranks: int) -> None:
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


def _no_memory(shape: tuple[int, int, int, int]) -> Frames:
    return np.empty(shape, np.uint8)
