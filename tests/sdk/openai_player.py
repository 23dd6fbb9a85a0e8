"""Played in an interpreter of its own, whose path holds one version of the `openai` SDK.

Reads a JSON command per line, does it by the sync or the async client, and writes a JSON line with
what its user would see.
"""

import asyncio
import base64
import inspect
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import openai


def shown(value: Any) -> Any:
    """Return *value* as JSON, with the request id that the SDK hangs on answers."""
    if hasattr(value, "to_dict"):
        return {**value.to_dict(), "_request_id": getattr(value, "_request_id", None)}
    return value


async def finished(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def act(client: Any, call: str, arguments: dict[str, Any]) -> Any:
    """Do *call*, `videos.create` and the like, and the few that take more than one step."""
    if call in STEPS:
        return await STEPS[call](client, arguments)
    target = client
    for name in call.split("."):
        target = getattr(target, name)
    return shown(await finished(target(*arguments.pop("args", ()), **arguments)))


async def walk(client: Any, arguments: dict[str, Any]) -> list[str]:
    pages = client.videos.list(**arguments)
    if hasattr(pages, "__aiter__"):
        return [video.id async for video in pages]
    return [video.id for video in pages]


async def download(client: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Read a file in all three ways, and say whether they agree."""
    video_id = arguments.pop("video_id")
    content = await finished(client.videos.download_content(video_id, **arguments))
    data = content.content
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        await finished(content.write_to_file(path))
        streamed = Path(folder) / "streamed"
        opened = client.videos.with_streaming_response.download_content(video_id, **arguments)
        if hasattr(opened, "__aenter__"):
            async with opened as answer:
                await answer.stream_to_file(streamed)
        else:
            with opened as answer:
                answer.stream_to_file(streamed)
        agree = data == path.read_bytes() == streamed.read_bytes()
    kind = content.response.headers["content-type"]
    return {"data": base64.b64encode(data).decode(), "agree": agree, "content_type": kind}


async def unwrap(client: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    event = client.webhooks.unwrap(arguments["body"], arguments["headers"])
    return {"type": event.type, "id": event.id, "video": event.data.id}


STEPS = {"walk": walk, "download": download, "unwrap": unwrap}


async def obey(command: dict[str, Any]) -> Any:
    colour = openai.AsyncOpenAI if command["is_async"] else openai.OpenAI
    client = colour(**command["client"])
    try:
        return {"value": await act(client, command["call"], command["arguments"])}
    except openai.APIStatusError as error:
        return {
            "raised": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "param": error.param,
            "type": error.type,
            "message": error.message,
            "request_id": error.request_id,
        }
    except Exception as error:  # noqa: BLE001 - whatever the SDK raises, its user sees
        return {"raised": type(error).__name__, "message": str(error)}
    finally:
        await finished(client.close())


def main() -> None:
    out = sys.stdout
    sys.stdout = sys.stderr  # nothing of the SDK's may come between the answers
    for line in sys.stdin:
        answer = asyncio.run(obey(json.loads(line)))
        print(json.dumps(answer, default=str), file=out, flush=True)


main()
