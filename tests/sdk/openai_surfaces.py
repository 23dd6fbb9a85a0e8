"""The `openai` SDKs in every version that the dialect is tried with, as one surface."""

from dataclasses import dataclass
from typing import Any

from tests.desks import KEY
from tests.sdk.installed import Player

NEWEST = "3.52.0"
CLIENTS = (
    (NEWEST, "sync"),
    (NEWEST, "async"),
    ("2.54.0", "sync"),
    ("2.54.0", "async"),
    ("2.3.0", "sync"),
)
"""Forms since 2.30, JSON before; 2.3 is the oldest that knows videos."""

JSON_BODY = {"Content-Type": "application/json"}
"""What makes newer SDKs send JSON, as 2.3.0 always does."""


@dataclass(frozen=True, kw_only=True)
class Sdk:
    """One version, by its sync or its async client."""

    player: Player
    version: str
    is_async: bool
    url: str

    def ask(self, call: str, *, client: dict[str, Any] | None = None, **arguments: Any) -> Any:
        """Return what the user sees of *call*: its value, or a dictionary with `raised`."""
        options = {"base_url": f"{self.url}/v1", "api_key": KEY, **(client or {})}
        command = {
            "is_async": self.is_async,
            "client": options,
            "call": call,
            "arguments": arguments,
        }
        answer = self.player.obey(command)
        return answer.get("value", answer)

    def create(self, prompt: str = "a red ball", **arguments: Any) -> dict[str, Any]:
        video: dict[str, Any] = self.ask("videos.create", prompt=prompt, **arguments)
        assert "raised" not in video, video
        return video

    def extra(self, **fields: Any) -> dict[str, Any]:
        return {"extra_body": fields}
