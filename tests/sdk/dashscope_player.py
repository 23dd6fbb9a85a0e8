"""Played in an interpreter of its own, whose path holds one version of the `dashscope` SDK.

Reads a JSON command per line, does it by one of the SDK's surfaces, and writes a JSON line with
what its user would see. `last` as a task stands for the object that the command before returned.
"""

import asyncio
import json
import sys
from typing import Any

import dashscope
from dashscope.aigc.video_synthesis import AioVideoSynthesis

_LAST: dict[str, Any] = {}


def old(call: str, url: str, arguments: dict[str, Any]) -> Any:
    """Do *call* by the 1.x class."""
    dashscope.base_http_api_url = url
    return getattr(dashscope.VideoSynthesis, call)(**arguments)


def old_async(call: str, url: str, arguments: dict[str, Any]) -> Any:
    dashscope.base_http_api_url = url
    return asyncio.run(getattr(AioVideoSynthesis, call)(**arguments))


_NEW = {"async_call": "create", "call": "generate"}
"""Names of the 2.x client for the 1.x class's."""


def new(call: str, url: str, arguments: dict[str, Any]) -> Any:
    """Do *call* by the 2.x client."""
    client = dashscope.Client(api_key=arguments.pop("api_key"), base_url=url)
    return _method(client, call)(*_positional(arguments), **arguments)


def new_async(call: str, url: str, arguments: dict[str, Any]) -> Any:
    async def act() -> Any:
        client = dashscope.AsyncClient(api_key=arguments.pop("api_key"), base_url=url)
        return await _method(client, call)(*_positional(arguments), **arguments)

    return asyncio.run(act())


def _method(client: Any, call: str) -> Any:
    name = _NEW.get(call, call)
    return getattr(client.videos if name == "generate" else client.videos.jobs, name)


def _positional(arguments: dict[str, Any]) -> list[Any]:
    if "task" not in arguments:
        return []
    return [arguments.pop("task")]


def seen(answer: Any) -> dict[str, Any]:
    """Return what the user sees of an answer of the 1.x classes."""
    return {
        "status": int(answer.status_code),
        "code": answer.code,
        "message": answer.message,
        "request_id": answer.request_id,
        "output": answer.output and dict(answer.output),
        "usage": answer.usage and dict(answer.usage),
    }


def seen_new(answer: Any) -> dict[str, Any]:
    """Return the same of a job, or a list of jobs, of the 2.x client."""
    if hasattr(answer, "tasks"):
        rows = [{"task_id": job.task_id, "status": job.status} for job in answer.tasks]
        return {"status": 200, "output": {"total": answer.total, "rows": rows}}
    job = {"task_id": answer.task_id, "task_status": answer.status}
    return {
        "status": 200,
        "code": None,
        "request_id": answer.request_id,
        "output": {**(answer.output or {}), **job},
        "usage": answer.usage and answer.usage.model_dump(),
    }


SURFACES = {
    "sync": (old, seen),
    "aio": (old_async, seen),
    "client": (new, seen_new),
    "async_client": (new_async, seen_new),
}


def obey(command: dict[str, Any]) -> dict[str, Any]:
    arguments = command["arguments"]
    if arguments.get("task") == "last":
        arguments["task"] = _LAST["answer"]
    act, look = SURFACES[command["surface"]]
    try:
        answer = act(command["call"], command["url"], arguments)
    except Exception as error:  # noqa: BLE001 - whatever the SDK raises, its user sees
        return {
            "raised": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "code": getattr(error, "code", None),
            "message": str(error),
        }
    _LAST["answer"] = answer
    return look(answer)


def main() -> None:
    out = sys.stdout
    sys.stdout = sys.stderr  # nothing of the SDK's may come between the answers
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line)), default=str), file=out, flush=True)


main()
