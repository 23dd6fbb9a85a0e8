"""LoRAs on the experts for the length of one clip; afterwards nothing of them is left.

The weights of the model are never touched: while a clip is drawn, each linear layer that its LoRA
changes is of a class that adds `up(down(x)) * scale` to what the layer's own `__call__` returns,
and of its own class again afterwards. So the way back to the base is exact by construction, however
the clip ended; FP8 layers, offloading and casting hooks, all of them inside that `__call__`, never
notice; and a compiled block meets the very classes it was compiled for.

Merging into the weights, and peft, were weighed: see docs/adr/0023.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from vidmill.domain.errors import LoraInvalid
from vidmill.domain.lora import SIDES, LoraUse
from vidmill.domain.lora_files import default_alpha, read_key
from vidmill.domain.ports import LoraFiles
from vidmill.telemetry import get_logger

log = get_logger(__name__)

_CAPACITY_BYTES = 4 * 2**30
"""A pair of A14B at rank 32 is 0.6 GB; at most 3 % of an H200 is kept for what may come again."""


@dataclass(frozen=True)
class _Factors:
    """One layer's share: `down (rank, in)`, `up (out, rank)`, and alpha ÷ rank."""

    down: Tensor
    up: Tensor
    scale: float

    @property
    def nbytes(self) -> int:
        return self.down.nbytes + self.up.nbytes


_Pair = tuple[Mapping[str, _Factors], Mapping[str, _Factors]]


class Adapters:
    """The LoRAs of one loaded pair of experts; those used last stay on the device.

    Args:
        experts: The high-noise one first.
        device: Where their arithmetic happens.
        dtype: Of that arithmetic.
        capacity_bytes: Kept on the device at most, the one in use not counted.
    """

    def __init__(
        self,
        experts: tuple[nn.Module, nn.Module],
        *,
        device: torch.device,
        dtype: torch.dtype,
        capacity_bytes: int = _CAPACITY_BYTES,
    ) -> None:
        self._experts = experts
        self._device = device
        self._dtype = dtype
        self._capacity_bytes = capacity_bytes
        self._held: OrderedDict[str, _Pair] = OrderedDict()

    @property
    def held(self) -> tuple[str, ...]:
        """Return the keys (`LoraUse.key`) of what is on the device, the one used last in front."""
        return tuple(reversed(self._held))

    @contextmanager
    def applied(self, use: LoraUse | None, files: LoraFiles | None) -> Iterator[None]:
        """Draw in the style *use* within the block, from the *files* of it.

        Raises:
            LoraInvalid: The files do not fit the experts.
        """
        if use is None:
            yield
            return
        changed: list[nn.Module] = []
        try:
            for expert, factors in zip(self._experts, self._get(use, files), strict=True):
                for name, its in factors.items():
                    layer = expert.get_submodule(name)
                    changed.append(layer)
                    _attach(layer, its, its.scale * use.strength)
            yield
        finally:
            for layer in changed:
                _detach(layer)

    def forget(self) -> None:
        """Have nothing on the device any more."""
        self._held.clear()

    def _get(self, use: LoraUse, files: LoraFiles | None) -> _Pair:
        if use.key in self._held:
            self._held.move_to_end(use.key)
            return self._held[use.key]
        if files is None:
            raise LoraInvalid(f"the files of the LoRA {use.name!r} were not given to the engine")
        high, low = (
            self._read(expert, getattr(files, side), f"the {side} file of the LoRA {use.name!r}")
            for expert, side in zip(self._experts, SIDES, strict=True)
        )
        pair = (high, low)
        self._held[use.key] = pair
        size_bytes = sum(map(_size_bytes, self._held.values()))
        while size_bytes > self._capacity_bytes and len(self._held) > 1:
            size_bytes -= _size_bytes(self._held.popitem(last=False)[1])
        log.info("lora_loaded", lora=use.name, key=use.key, size_bytes=_size_bytes(pair))
        return pair

    def _read(self, expert: nn.Module, path: Any, what: str) -> dict[str, _Factors]:
        parts: dict[tuple[str, str], Tensor] = {}
        try:
            with safe_open(path, framework="pt") as file:
                alpha = default_alpha(file.metadata() or {})
                for name in file.keys():  # noqa: SIM118  safe_open is no mapping
                    key = read_key(name)
                    if key is None:
                        raise LoraInvalid(f"{what} holds {name!r}, which is no part of a LoRA")
                    parts[key.module, key.part] = file.get_tensor(name)
            return {
                module: self._factors(expert.get_submodule(module), module, parts, alpha)
                for module in dict.fromkeys(module for module, _ in parts)
            }
        except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
            raise LoraInvalid(
                f"{what} does not fit the model: {error}; upload a LoRA that was made for it"
            ) from error

    def _factors(
        self,
        layer: Any,
        module: str,
        parts: Mapping[tuple[str, str], Tensor],
        alpha: float | None,
    ) -> _Factors:
        down, up = (parts[module, part].to(self._device, self._dtype) for part in ("down", "up"))
        rank = down.shape[0]
        if down.shape != (rank, layer.in_features) or up.shape != (layer.out_features, rank):
            raise ValueError(f"{module} is {layer.in_features} to {layer.out_features}")
        if not bool(down.isfinite().all() and up.isfinite().all()):
            raise ValueError(f"{module} holds NaN or infinity")
        own = parts.get((module, "alpha"))
        alpha = alpha if own is None else float(own.item())
        return _Factors(down, up, 1.0 if alpha is None else alpha / rank)


class _Changed:
    """What a layer in use is besides its own class."""

    lora_down: Tensor
    lora_up: Tensor
    lora_scale: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        drawn: Tensor = super().__call__(x)  # type: ignore[misc]
        # A tensor, not a number: a compiled block would be compiled anew for every strength.
        inner = functional.linear(x.to(self.lora_down.dtype), self.lora_down) * self.lora_scale
        return drawn + functional.linear(inner, self.lora_up).to(drawn.dtype)


_CHANGED: dict[type[nn.Module], type[nn.Module]] = {}
"""The class of a changed layer, by its own: made once, so that compiled code knows it again."""


def _changed(kind: type[nn.Module]) -> type[nn.Module]:
    if kind not in _CHANGED:
        _CHANGED[kind] = type(f"Lora{kind.__name__}", (_Changed, kind), {})
    return _CHANGED[kind]


_ATTRIBUTES = ("lora_down", "lora_up", "lora_scale")


def _attach(layer: nn.Module, factors: _Factors, scale: float) -> None:
    """Change *layer*. Its new attributes are no parameters: nothing saves, moves or casts them."""
    tensor = torch.tensor(scale, dtype=factors.down.dtype, device=factors.down.device)
    values = (factors.down, factors.up, tensor)
    vars(layer).update(zip(_ATTRIBUTES, values, strict=True))
    layer.__class__ = _changed(type(layer))


def _detach(layer: nn.Module) -> None:
    if isinstance(layer, _Changed):
        layer.__class__ = type(layer).__bases__[1]
    for name in _ATTRIBUTES:
        vars(layer).pop(name, None)


def _size_bytes(pair: _Pair) -> int:
    return sum(factors.nbytes for side in pair for factors in side.values())
