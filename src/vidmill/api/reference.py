"""The generated reference: docs/api.md, docs/errors.md and docs/openapi.json, from the routes."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from vidmill.api.app import create_app
from vidmill.api.errors import KINDS, UNEXPECTED
from vidmill.domain.errors import ERRORS, WORK_ERRORS
from vidmill.profiles import load_profile
from vidmill.settings import Settings
from vidmill.wiring import App

WORK_MEANINGS: Mapping[str, str] = {
    "engine_failed": "The model's device failed in the middle of a clip.",
    "out_of_memory": "The device had too little memory for this size and length.",
    "model_invalid": "The model folder is damaged or of another shape; see `vidmill models`.",
    "lora_invalid": "The files of the LoRA are gone, do not fit the model, or spoil what it draws.",
    "spec_unsupported": "The model cannot make such a clip.",
    "bad_output": "Frames or file failed a check.",
    "shot_missing": "A shot of a storyboard was not made, or its task was deleted.",
    "storage_failed": "The finished file could not be stored.",
    "disk_full": "There was no room for the finished file.",
    "worker_lost": "The process that ran it died, or its machine did.",
    "render_crashed": "The process that drew it died in the middle.",
    "poison_job": "It ended the render process again and again (`VIDMILL_CRASH_MAX`).",
    "timed_out": "It ran longer than the hard limit and was killed.",
    "internal_error": "A defect of ours; the logs have more under the task's id.",
    "cancelled": "Somebody cancelled it.",
}
"""What happened to a task, by the code in its `error`."""

FIELD_MEANINGS: Mapping[str, str] = {
    "required": "The field is missing.",
    "unknown_field": "There is no such field; the message names the nearest one.",
    "unknown_parameter": "There is no such query parameter.",
    "repeated": "The query parameter is given twice.",
    "type": "The value has another JSON type.",
    "blank": "The text shows nothing.",
    "forbidden_character": "The text holds control or surrogate characters.",
    "max_length": "The text is longer than `limit` characters (code points, NFC, trimmed).",
    "min_items": "There are fewer than `limit` entries.",
    "max_items": "There are more than `limit` entries.",
    "min": "The number is below `limit`.",
    "max": "The number is above `limit`.",
    "step": "The number lies between two steps of `limit`.",
    "not_offered": "The value is none of those in `limit`.",
    "unsupported": "This model or this release cannot do that.",
    "url": "The text is no URL, or its host or port is none.",
    "scheme": "The URL does not begin as it must.",
    "userinfo": "The URL holds a user name or a password.",
    "address": "The URL leads to a machine that is not on the public internet.",
    "unresolvable": "The host of the URL has no address now.",
}
"""What is wrong with a field, by the code in `errors`."""


def openapi_document() -> str:
    """Return docs/openapi.json."""
    return json.dumps(_openapi(), indent=1, ensure_ascii=False) + "\n"


def api_page() -> str:
    """Return docs/api.md."""
    return "\n".join(_api_lines(_openapi()))


def errors_page() -> str:
    """Return docs/errors.md."""
    return "\n".join(_error_lines())


def _openapi() -> dict[str, Any]:
    nothing = cast("Any", None)  # routes are described, none is called, so nothing is opened
    app = App(
        settings=Settings.model_validate({"data_dir": Path()}),  # whatever the environment says
        db=nothing,
        blobs=nothing,
        bus=nothing,
        tickets=nothing,
        profile=load_profile("tiny"),
        signing_secret=b"",
    )
    doc: dict[str, Any] = create_app(app).openapi()
    return doc


def _api_lines(doc: Mapping[str, Any]) -> Iterator[str]:
    yield from (
        "# HTTP API",
        "",
        "Generated from the routes by `make docs`; as a schema: [openapi.json](openapi.json).",
        "Every route under `/v1` wants `Authorization: Bearer <key>`. Times are RFC 3339 in UTC.",
        "Errors are `application/problem+json`; [errors.md](errors.md) lists their codes.",
        "Send `X-Request-ID` to find a request in the logs; every answer carries one.",
        "",
    )
    for path, methods in doc["paths"].items():
        for method, operation in methods.items():
            yield from _operation_lines(method.upper(), path, operation)
    yield from ("## Shapes", "")
    schemas = doc["components"]["schemas"]
    for name in sorted(schemas):
        yield from _schema_lines(name, schemas[name])


def _operation_lines(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"## {method} {path}", "", f"{operation['summary']}.", "")
    parameters = operation.get("parameters") or []
    if parameters:
        yield from ("| parameter | in | meaning |", "|---|---|---|")
        for parameter in parameters:
            meaning = f"{parameter.get('description', '')} {_type_of(parameter['schema'])}".strip()
            yield f"| `{parameter['name']}` | {parameter['in']} | {meaning} |"
        yield ""
    if body := operation.get("requestBody"):
        content = body["content"]
        yield from _fields(content.get("application/json", next(iter(content.values())))["schema"])
    yield from ("| answer | meaning |", "|---|---|")
    for status, answer in sorted(operation["responses"].items()):
        yield f"| {status} | {_answer_meaning(answer)} |"
    yield ""


def _answer_meaning(answer: Mapping[str, Any]) -> str:
    content = answer.get("content", {})
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    shape = f" {_shape_link(reference)}" if reference else ""
    examples = content.get("application/problem+json", {}).get("examples", {})
    codes = ", ".join(f"`{code}`" for code in examples)
    return f"{answer['description']}{shape}{': ' + codes if codes else ''}"


def _schema_lines(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"### {name}", "", schema.get("description", ""), "")
    yield from _fields(schema)


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    required = set(schema.get("required", ()))
    yield from ("| field | type | meaning |", "|---|---|---|")
    for name, field in schema.get("properties", {}).items():
        star = " (required)" if "default" not in field and name in required else ""
        default = f" Default `{json.dumps(field['default'])}`." if field.get("default") else ""
        meaning = field.get("description", "") + default
        yield f"| `{name}`{star} | {_type_of(field)} | {meaning.strip()} |"
    yield ""


def _type_of(schema: Mapping[str, Any]) -> str:
    if reference := schema.get("$ref"):
        return _shape_link(reference)
    if choices := schema.get("anyOf"):
        return " or ".join(_type_of(choice) for choice in choices)
    if names := schema.get("enum"):
        return ", ".join(f"`{name}`" for name in names)
    if schema.get("type") == "array":
        return f"array of {_type_of(schema.get('items', {}))}"
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (("minimum", "from"), ("maximum", "to"), ("maxLength", "up to"))
        if key in schema
    ]
    return " ".join([str(schema.get("type", "any")), *bounds])


def _shape_link(reference: str) -> str:
    name = reference.rpartition("/")[2]
    return f"[{name}](#{name.lower()})"


def _error_lines() -> Iterator[str]:
    yield from (
        "# Errors",
        "",
        "One shape everywhere: RFC 9457 problem details with a stable `code`. A code never changes",
        "its meaning. `retryable` says whether the same request may succeed later.",
        "",
        "## Answers",
        "",
        "| code | HTTP | retryable | meaning |",
        "|---|---|---|---|",
    )
    for kind, look in sorted(KINDS.items(), key=lambda item: (item[1].status, item[0].code)):
        yield f"| `{kind.code}` | {look.status} | {_yes(kind.is_retryable)} | {look.title}. |"
    unexpected = ERRORS["internal_error"]
    retryable = _yes(unexpected.is_retryable)
    yield f"| `{unexpected.code}` | {UNEXPECTED.status} | {retryable} | {UNEXPECTED.title}. |"
    yield from ("", "## Fields", "", "Each entry of `errors` names a field by JSON pointer.", "")
    yield from ("| code | meaning |", "|---|---|")
    yield from (f"| `{code}` | {meaning} |" for code, meaning in FIELD_MEANINGS.items())
    yield from ("", "## Tasks", "", "What `error.code` of a failed task says.", "")
    yield from ("| code | retried | meaning |", "|---|---|---|")
    for code, kind in sorted(WORK_ERRORS.items()):
        yield f"| `{code}` | {_yes(kind.is_retryable)} | {WORK_MEANINGS[code]} |"
    yield ""


def _yes(value: bool) -> str:  # noqa: FBT001 - a column of a table
    return "yes" if value else "no"
