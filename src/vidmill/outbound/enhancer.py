"""Asks a language model to write a prompt out, by OpenAI's chat completions.

The operator chose the server, so its address is not guarded. Its answer is bounded in time and
size, a redirect is no answer, and neither key nor prompt is in any message or log.
"""

import asyncio
import functools
import json
import ssl
import time
from typing import Any

import httpx2

from vidmill.domain.enhancing import INSTRUCTIONS, Enhancement, UnusableAnswer, usable
from vidmill.domain.errors import EnhancerUnavailable
from vidmill.domain.prompting import detect_language
from vidmill.telemetry import get_logger

log = get_logger(__name__)

ANSWER_MAX_BYTES = 256 * 1024


class _NoPrompt(Exception):
    """What the enhancer did instead of writing one, in our words."""


class Enhancer:
    """One endpoint.

    Args:
        url: Where `/chat/completions` is appended.
        api_key: Sent as bearer token; empty = none is sent.
        max_chars: Longest text that is taken, code points.
    """

    def __init__(
        self, url: str, *, model: str, api_key: str, timeout_s: float, max_chars: int
    ) -> None:
        self._url = url.rstrip("/") + "/chat/completions"
        self._host = httpx2.URL(url).host
        self._model = model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout_s = timeout_s
        self._max_chars = max_chars

    async def enhance(self, prompt: str) -> Enhancement:
        """Return *prompt* written out in its own language.

        Raises:
            EnhancerUnavailable: Nothing usable came back in time.
        """
        began_at, fields = time.monotonic(), {"host": self._host, "model": self._model}
        try:
            text = await self._written(prompt)
        except _NoPrompt as error:
            log.warning("enhancer_unavailable", **fields, reason=str(error))
            raise EnhancerUnavailable(
                f"the prompt enhancer {error}; nothing was queued: send the request again later,"
                " or without enhance"
            ) from None
        log.info("prompt_enhanced", **fields, seconds=round(time.monotonic() - began_at, 3))
        return Enhancement(text=text, model=self._model)

    async def _written(self, prompt: str) -> str:
        language = detect_language(prompt)
        messages = [
            {"role": "system", "content": INSTRUCTIONS[language]},
            {"role": "user", "content": prompt},
        ]
        try:
            async with asyncio.timeout(self._timeout_s):
                data = await self._post({"model": self._model, "messages": messages})
            return usable(_content(data), prompt, max_chars=self._max_chars)
        except TimeoutError:
            raise _NoPrompt(f"gave no answer within {self._timeout_s:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            raise _NoPrompt(f"cannot be reached ({type(error).__name__})") from None
        except UnusableAnswer as error:
            raise _NoPrompt(f"gave an answer that cannot be used: {error}") from None

    async def _post(self, body: dict[str, Any]) -> bytes:
        data = bytearray()
        client = httpx2.AsyncClient(timeout=self._timeout_s, verify=_certificates())
        async with (
            client,
            client.stream("POST", self._url, json=body, headers=self._headers) as response,
        ):
            if response.status_code != httpx2.codes.OK:
                raise _NoPrompt(f"answered with status {response.status_code}")
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > ANSWER_MAX_BYTES:
                    raise UnusableAnswer(f"it is longer than {ANSWER_MAX_BYTES} bytes")
        return bytes(data)


def _content(data: bytes) -> str:
    try:
        content = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        content = None
    if not isinstance(content, str):
        raise UnusableAnswer("it is no chat completion")
    return content


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Return what every call shares: reading the authorities takes 50 ms."""
    return httpx2.create_ssl_context()
