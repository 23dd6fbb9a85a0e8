"""Requests about batches: from a JSON body or an uploaded file to rows to check."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from vidmill.api.body import DECODER, parse
from vidmill.api.dialects import native_query
from vidmill.api.dialects.native_request import (
    Check,
    field_problem,
    read_order,
    text_problems,
)
from vidmill.domain.clip import normalise_text
from vidmill.domain.errors import (
    FieldProblem,
    InvalidRequest,
    MalformedBody,
    UnsupportedMediaType,
)
from vidmill.domain.order import PRIORITIES
from vidmill.services.batch_checks import Accept, Candidate
from vidmill.services.batch_files import (
    CUSTOM_ID,
    RawRow,
    RowFile,
    read_csv,
    read_items,
    read_json_lines,
)
from vidmill.services.batches import Sheet

Body = TypeVar("Body", bound=BaseModel)

DEFAULT_PRIORITY = "low"
"""A batch is in nobody's way unless its owner wants it."""


class BatchBody(BaseModel):
    """Clips to check together."""

    model_config = ConfigDict(strict=True, extra="forbid", title="BatchRequest")

    items: list[Any] = Field(
        description="The fields of `generate` for each clip, and `custom_id`, your name for it."
    )
    defaults: dict[str, Any] = Field(
        default_factory=dict, description="Fields of rows that lack them."
    )
    name: str | None = Field(None, description="Your name for the batch.")
    priority: str = Field(
        DEFAULT_PRIORITY, description="Of rows that name none: `low`, `normal` or `high`."
    )
    webhook_url: str | None = Field(None, description="Told once every task of the batch is over.")


class ConfirmBody(BaseModel):
    """What to queue."""

    model_config = ConfigDict(strict=True, extra="forbid", title="BatchConfirmation")

    accept: Accept = Field(
        "ready_rows_only", description="`all_or_nothing`: queue nothing unless every row is ready."
    )


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What one request brought, before its rows are checked."""

    data: bytes
    kind: Literal["json", "csv", "jsonl"]
    options: Mapping[str, Any]


def _yes(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError("choose one of: true, false")
    return text == "true"


def _object(text: str) -> dict[str, Any]:
    try:
        found = parse(text.encode("utf-8", "replace"))
    except MalformedBody as error:
        raise ValueError(str(error)) from None
    if not isinstance(found, dict):
        raise ValueError("it must be a JSON object")  # noqa: TRY004  the edge knows ValueError
    return found


_CONFIRM: Mapping[str, native_query.Parser] = {"confirm": _yes}
OPTIONS: Mapping[str, native_query.Parser] = {
    **_CONFIRM,
    "name": str,
    "priority": str,
    "webhook_url": str,
    "defaults": _object,
    "encoding": str,
}
"""What comes beside a file: in the query, or as further parts of a form."""

_KINDS: Mapping[str, Literal["json", "csv", "jsonl"]] = {
    "application/json": "json",
    "text/csv": "csv",
    "text/tab-separated-values": "csv",
    "application/csv": "csv",
    "application/vnd.ms-excel": "csv",  # how Windows calls a .csv
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/json-lines": "jsonl",
}
_SUFFIXES: Mapping[str, Literal["csv", "jsonl"]] = {
    "csv": "csv",
    "tsv": "csv",
    "txt": "csv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
}
_FORM = "multipart/form-data"


async def read_upload(request: Request) -> Upload:
    """Return what the request brought.

    Raises:
        UnsupportedMediaType: It is neither JSON, CSV, JSON Lines nor a form.
        MalformedBody: The form is damaged.
        InvalidRequest: An option is wrong, or the form has no file.
    """
    declared = request.headers.get("content-type", "application/json")
    media_type, _, rest = declared.partition(";")
    media_type = media_type.strip().lower()
    if media_type == _FORM:
        return await _read_form(request)
    kind = _KINDS.get(media_type)
    if kind is None:
        raise UnsupportedMediaType(
            f"the body is declared as {media_type[:80]!r}; send application/json, text/csv,"
            " application/x-ndjson, or a form with the file in the part 'file'"
        )
    options = native_query.read_query(request, _CONFIRM if kind == "json" else OPTIONS)
    if charset := _charset(rest):
        options.setdefault("encoding", charset)
    return Upload(data=await request.body(), kind=kind, options=options)


def read_batch(upload: Upload, check: Check, *, rows_max: int) -> tuple[list[Candidate], Sheet]:
    """Return the rows of *upload*, each an order or its problems, and what is said of them all.

    Raises:
        MalformedBody: It is not JSON.
        InvalidRequest: It cannot be used as a whole.
    """
    file, options = _READERS[upload.kind](upload, rows_max)
    sheet = _sheet(options, file)
    defaults = {"priority": options.get("priority") or DEFAULT_PRIORITY}
    defaults |= _checked_defaults(options.get("defaults") or {}, check)
    return [_candidate(row, defaults, check) for row in file.rows], sheet


def read_accept(body: bytes) -> Accept:
    """Return what a confirmation accepts.

    Raises:
        MalformedBody, InvalidRequest: The body is not such a thing.
    """
    if not body.strip():
        return "ready_rows_only"
    return _validated(ConfirmBody, parse(body)).accept


async def _read_form(request: Request) -> Upload:
    try:
        form = await request.form(max_files=1, max_fields=len(OPTIONS))
    except (MultiPartException, FormParserError, HTTPException) as error:
        reason = getattr(error, "message", None) or getattr(error, "detail", None) or str(error)
        raise MalformedBody(f"the form cannot be read: {str(reason)[:200]}") from error
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidRequest([_problem("file", "required", "the form has no file; add one")])
        texts = [(name, text) for name, text in form.multi_items() if isinstance(text, str)]
        parts = native_query.read_pairs(texts, OPTIONS, place="", unknown="unknown_field")
        options = native_query.read_query(request, OPTIONS) | parts
        return Upload(data=await file.read(), kind=_kind_of(file), options=options)
    finally:
        await form.close()


def _kind_of(file: UploadFile) -> Literal["csv", "jsonl"]:
    """Return the format by the file's name; browsers guess media types as they like."""
    suffix = (file.filename or "").rpartition(".")[2].lower()
    by_type = _KINDS.get((file.content_type or "").partition(";")[0].strip().lower(), "json")
    kind = _SUFFIXES.get(suffix) or by_type
    if kind == "json":
        message = f"the file is called {(file.filename or '')[:60]!r}; name it *.csv or *.jsonl"
        raise InvalidRequest([_problem("file", "not_offered", message)])
    return kind


def _charset(parameters: str) -> str | None:
    for part in parameters.split(";"):
        name, _, value = part.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"')
    return None


def _read_json(upload: Upload, rows_max: int) -> tuple[RowFile, Mapping[str, Any]]:
    body = _validated(BatchBody, parse(upload.data))
    given = body.model_dump(exclude={"items"})
    return read_items(body.items, rows_max=rows_max), given


def _read_csv(upload: Upload, rows_max: int) -> tuple[RowFile, Mapping[str, Any]]:
    encoding = upload.options.get("encoding")
    return read_csv(upload.data, rows_max=rows_max, encoding=encoding), upload.options


def _read_jsonl(upload: Upload, rows_max: int) -> tuple[RowFile, Mapping[str, Any]]:
    return read_json_lines(upload.data, rows_max=rows_max, decode=DECODER.decode), upload.options


_READERS: Mapping[str, Callable[[Upload, int], tuple[RowFile, Mapping[str, Any]]]] = {
    "json": _read_json,
    "csv": _read_csv,
    "jsonl": _read_jsonl,
}


def _sheet(options: Mapping[str, Any], file: RowFile) -> Sheet:
    name = options.get("name")
    wrong = text_problems("name", name) if name is not None else []
    if options.get("priority", DEFAULT_PRIORITY) not in PRIORITIES:
        message = f"choose one of: {', '.join(PRIORITIES)}"
        wrong.append(_problem("priority", "not_offered", message))
    if wrong:
        raise InvalidRequest(wrong)
    source = {
        "format": file.format,
        "encoding": file.encoding,
        "is_guess": file.is_guess,
        "delimiter": file.delimiter,
    }
    return Sheet(
        name=None if name is None else normalise_text(name),
        webhook_url=options.get("webhook_url"),
        source=source,
    )


def _checked_defaults(defaults: Mapping[str, Any], check: Check) -> Mapping[str, Any]:
    """Return *defaults*; what is wrong with them is wrong with every row, and said once."""
    try:
        wrong = check(read_order({"prompt": "-", **defaults}, check))
    except InvalidRequest as error:
        wrong = list(error.problems)
    if wrong:
        raise InvalidRequest(
            [replace(one, pointer=one.pointer.replace("#", "#/defaults", 1)) for one in wrong]
        )
    return defaults


def _candidate(row: RawRow, defaults: Mapping[str, Any], check: Check) -> Candidate:
    if not isinstance(row.value, dict):
        return Candidate(line=row.line, problems=[_problem("", "type", "it must be an object")])
    item = {**defaults, **row.value}
    custom_id = item.pop(CUSTOM_ID, None)
    unnamed = _custom_id_problems(custom_id)
    wrong = [*row.problems, *unnamed]
    known = None if unnamed else custom_id
    if any(problem.pointer == "#" for problem in row.problems):
        return Candidate(line=row.line, custom_id=known, problems=wrong)
    try:
        order = read_order(item, check)
    except InvalidRequest as error:
        return Candidate(line=row.line, custom_id=known, problems=[*wrong, *error.problems])
    return Candidate(line=row.line, custom_id=known, order=order, problems=wrong)


def _custom_id_problems(custom_id: object) -> list[FieldProblem]:
    if custom_id is None:
        return []
    if not isinstance(custom_id, str):
        return [_problem(CUSTOM_ID, "type", "it must be text")]
    return text_problems(CUSTOM_ID, custom_id)


def _validated(model: type[Body], data: object) -> Body:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InvalidRequest(
            [field_problem(one, model.model_fields) for one in error.errors(include_url=False)]
        ) from None


def _problem(name: str, code: str, message: str, *, limit: int | None = None) -> FieldProblem:
    pointer = f"#/{name[:60]}" if name else "#"
    return FieldProblem(pointer=pointer, code=code, message=message, limit=limit)
