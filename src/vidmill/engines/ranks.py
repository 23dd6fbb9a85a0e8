"""Several processes, one device each, draw one clip: every rank computes a share of its tokens.

Each rank holds all weights; `token_share` divides the work. Noise and sampler are the same on all
of them; rank 0 alone decodes.

The danger is an exchange that not all ranks come to: it never ends. So they stop before the same
block (`lockstep`), and a rank that fails takes the others with it (`RankedEngine.generate`).
"""

import os
from datetime import timedelta
from typing import Any, Protocol

import numpy as np
import torch
from torch import distributed as dist

from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import EngineFailed, EngineOutOfMemory, JobCancelled, ModelInvalid
from vidmill.domain.ports import Allocate, Frames, LoraFiles, Show, Watch
from vidmill.domain.profile import Layout, ModelProfile
from vidmill.engines.folder import require_sound
from vidmill.engines.hub import fetch_folder
from vidmill.engines.lockstep import MARGIN_BLOCKS, LeadWatch, Lockstep, MateWatch, Stop
from vidmill.engines.pipeline import choose_device, device_errors
from vidmill.engines.placement import AUTO
from vidmill.engines.refusals import refuse_unsupported
from vidmill.engines.token_share import Place, TokenShare, divisible, refuse_few_heads
from vidmill.engines.wan import WanEngine
from vidmill.telemetry import get_logger

log = get_logger(__name__)

_UNWIND_S = 5.0
"""After an error here, how long the mates may take to end their part of the same clip. A block
lasts 0.2 s, so a rank that takes longer waits in an exchange for one that will not come."""

_EXCHANGE_LIMIT_S = 1800.0
"""How long an exchange may wait for the slowest rank: compiling a shape takes minutes. It is no
guard against a rank that is gone; the mates are watched for that."""


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
        ranks: int,
    ) -> None:
        profile = divisible(profile)
        super().__init__(profile, source, device=device, threads=threads, layout=layout)
        self._ranks = ranks

    def _join(self, store: Any, *, rank: int) -> None:
        """Meet the other ranks and divide the experts among them; returns when all are there."""
        place = Place(rank=rank, ranks=self._ranks)
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
            torch.compiler.set_stance("default")  # an uneven clip leaves it at eager


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
        super().__init__(
            profile, source, device=device, threads=threads, layout=layout, ranks=mates.ranks
        )
        self._mates = mates
        self._clips = 0

    def load(self) -> None:
        if self._loaded is not None:
            return
        folder = fetch_folder(self._source, self._revision)  # once, not by each rank
        require_sound(self._profile, folder)
        refuse_few_heads(folder, self._ranks)
        self._source = str(folder)
        self._mates.start(self._source)
        super().load()
        self._expect("loaded")
        self._tell("agree", layout=self._model.placement.layout)
        self._expect("agreed")
        store = _store(self._ranks)
        self._tell("join", port=store.port)
        self._join(store, rank=0)
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
        return MARGIN_BLOCKS + skipped

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

    def agree(self, layout: Layout) -> None:
        """Raise `ModelInvalid` if rank 0, in *layout*, draws with other weights than this rank."""
        own = self._model.placement.layout
        if (own is Layout.FP8) != (layout is Layout.FP8):
            raise ModelInvalid(
                f"it took the layout {own} and rank 0 {layout}, and only one of the two rounds the"
                f" weights; set VIDMILL_LAYOUT to one that fits every device, such as fp8"
            )

    def join(self, port: int, *, rank: int) -> None:
        """Meet the other ranks at the *port* that rank 0 named; returns when all are there."""
        self._join(_store(self._ranks, port), rank=rank)

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


def _store(ranks: int, port: int = 0) -> Any:
    """Return where the ranks find one another; without a *port* it is opened at a free one."""
    make: Any = dist.TCPStore  # type: ignore[attr-defined]
    return make("127.0.0.1", port, ranks, is_master=not port, wait_for_workers=False)


def _no_memory(shape: tuple[int, int, int, int]) -> Frames:
    return np.empty(shape, np.uint8)
