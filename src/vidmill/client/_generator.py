"""The shortest way from text to a link. Both colours."""

from collections.abc import Mapping
from typing import Any

from vidmill.client._async import AsyncVidmill
from vidmill.client._errors import ModelNotServed, VidmillError
from vidmill.client._models import Capabilities, ClipRequest, Task
from vidmill.client._sync import Vidmill


class _Choice:
    """What both colours share: the model that must be there, and the words for it."""

    def __init__(self, model: str | None) -> None:
        self.model = model
        self.is_checked = model is None

    def check(self, capabilities: Capabilities) -> None:
        served = capabilities.model.name
        if served != self.model:
            raise ModelNotServed(
                f"the server runs {served!r}, not {self.model!r}; name that one, or none"
            )
        self.is_checked = True


class VideoGenerator:
    """Makes clips of one model and returns links to them.

    Example:
        >>> VideoGenerator(model="tiny").generate("a red ball", {"duration": 3})
        'http://127.0.0.1:8000/files/...'
    """

    def __init__(
        self, model: str | None = None, api_key: str | None = None, *, url: str | None = None
    ) -> None:
        """Find the server as `Vidmill` does; *model* must be the one it runs, None = whichever."""
        self._choice = _Choice(model)
        self._vidmill = Vidmill(url, api_key)

    def generate(self, text: str, config: Mapping[str, Any] | None = None) -> str:
        """Make a clip, wait for it and return a signed link to the MP4, which expires.

        Args:
            text: What to show.
            config: Fields of `ClipRequest`; `duration` is `duration_s`.

        Raises:
            ModelNotServed: The server runs another model; nothing was queued.
            VidmillError: As `Vidmill.generate`.
        """
        clip = _clip(text, config)
        if not self._choice.is_checked:
            self._choice.check(self._vidmill.capabilities())
        return _link(self._vidmill.wait(self._vidmill.submit(clip)).task)

    def close(self) -> None:
        self._vidmill.close()


class AsyncVideoGenerator:
    """Makes clips of one model and returns links to them, on asyncio."""

    def __init__(
        self, model: str | None = None, api_key: str | None = None, *, url: str | None = None
    ) -> None:
        """Find the server as `Vidmill` does; *model* must be the one it runs, None = whichever."""
        self._choice = _Choice(model)
        self._vidmill = AsyncVidmill(url, api_key)

    async def generate(self, text: str, config: Mapping[str, Any] | None = None) -> str:
        """Make a clip, wait for it and return a link to it; as `VideoGenerator.generate`."""
        clip = _clip(text, config)
        if not self._choice.is_checked:
            self._choice.check(await self._vidmill.capabilities())
        return _link((await self._vidmill.wait(await self._vidmill.submit(clip))).task)

    async def close(self) -> None:
        await self._vidmill.close()


def _clip(text: str, config: Mapping[str, Any] | None) -> ClipRequest:
    fields = dict(config or {})
    if "duration" in fields:
        fields["duration_s"] = fields.pop("duration")
    return ClipRequest(prompt=text, **fields)


def _link(task: Task) -> str:
    if not task.result_url:
        raise VidmillError(f"task {task.task_id} is completed, but has no link; use `result`")
    return task.result_url
