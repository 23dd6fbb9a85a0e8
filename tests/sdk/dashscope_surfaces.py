"""The `dashscope` SDKs under test: three versions, each with all the ways in which it is called."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.desks import KEY
from tests.sdk.installed import Player

MODEL = "wan2.2-t2v-plus"

SURFACES: Mapping[str, tuple[str, ...]] = {
    "1.24.6": ("sync", "aio"),
    "1.27.8": ("sync", "aio"),
    "2.0.2": ("sync", "aio", "client", "async_client"),
}


@dataclass(frozen=True, kw_only=True)
class Sdk:
    """One way to call a server by one version."""

    player: Player
    version: str
    surface: str
    url: str

    @property
    def is_new(self) -> bool:
        """Whether it is the 2.x client, which raises errors rather than returning them."""
        return self.surface.endswith("client")

    def ask(self, call: str, *, key: str = KEY, **arguments: Any) -> dict[str, Any]:
        """Do *call*, by its name in 1.x; return what the user sees."""
        return self.player.obey(
            {
                "surface": self.surface,
                "call": call,
                "url": f"{self.url}/api/v1",
                "arguments": {"api_key": key, **arguments},
            }
        )

    def submit(self, prompt: str = "a red ball", **arguments: Any) -> dict[str, Any]:
        """Submit a clip; what the surface has no keyword for goes where it puts such things."""
        return self.ask("async_call", **self.order(prompt, **arguments))

    def order(self, prompt: str = "a red ball", **arguments: Any) -> dict[str, Any]:
        """Return a submit's arguments as the surface takes them."""
        order = {"model": MODEL, "prompt": prompt, **arguments}
        if self.is_new:
            extras = order.keys() - _KEYWORDS
            order["parameters"] = {name: order.pop(name) for name in extras}
        return order


_KEYWORDS = frozenset(
    {
        "model", "prompt", "image_url", "media", "extra_input", "seed", "size", "duration",
        "resolution", "ratio", "prompt_extend", "watermark", "workspace", "poll_interval",
    }
)  # fmt: skip
