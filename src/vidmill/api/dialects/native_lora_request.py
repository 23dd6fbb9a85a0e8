"""The form that uploads a LoRA: two files on disk, and what is said of them."""

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from python_multipart.exceptions import FormParserError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from vidmill.domain.errors import (
    FieldProblem,
    InvalidRequest,
    MalformedBody,
    UnsupportedMediaType,
)
from vidmill.domain.lora import SIDES, TRIGGER_WORDS_MAX, Side
from vidmill.services.loras import WantedLora

_TEXTS = ("name", "licence", "strength")
_WORDS = "trigger_words"
_FIELDS = (*SIDES, *_TEXTS, _WORDS)


@dataclass(frozen=True, kw_only=True)
class LoraUpload:
    """What one request brought. The files are gone when the request is over."""

    wanted: WantedLora
    files: dict[Side, Path]


@contextlib.asynccontextmanager
async def read_upload(
    request: Request, scratch: Path, *, file_max_bytes: int
) -> AsyncIterator[LoraUpload]:
    """Give what the form holds, its files copied below *scratch* for as long as the block runs.

    Raises:
        UnsupportedMediaType: It is no form.
        MalformedBody: The form is damaged.
        InvalidRequest: A part is missing, unknown, given twice or too large.
    """
    declared = request.headers.get("content-type", "")
    if declared.partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedMediaType(
            f"the body is declared as {declared[:80]!r}; send a form (multipart/form-data) with the"
            " files in the parts 'high' and 'low'"
        )
    try:
        form = await request.form(
            max_files=len(SIDES), max_fields=len(_TEXTS) + TRIGGER_WORDS_MAX + 1
        )
    except (MultiPartException, FormParserError, HTTPException) as error:
        reason = getattr(error, "message", None) or getattr(error, "detail", None) or str(error)
        raise MalformedBody(f"the form cannot be read: {str(reason)[:200]}") from error
    try:
        wrong = [*_wrong_parts(form, file_max_bytes)]
        strength = _strength(form, wrong)
        if wrong:
            raise InvalidRequest(wrong)
        with contextlib.ExitStack() as stack:
            files = await run_in_threadpool(_copy, form, scratch, stack)
            wanted = WantedLora(
                name=str(form["name"]),
                licence=str(form["licence"]).strip(),
                trigger_words=tuple(str(word).strip() for word in form.getlist(_WORDS)),
                strength=strength,
            )
            yield LoraUpload(wanted=wanted, files=files)
    finally:
        await form.close()


def _wrong_parts(form: FormData, file_max_bytes: int) -> Iterator[FieldProblem]:
    for name in dict.fromkeys(form):
        if name not in _FIELDS:
            known = ", ".join(_FIELDS)
            yield _problem(name[:60], "unknown_field", f"there is no such part; known are {known}")
        elif name != _WORDS and len(form.getlist(name)) > 1:
            yield _problem(name, "repeated", "it is given twice; send it once")
        elif isinstance(form[name], UploadFile) is not (name in SIDES):
            kind = "a file" if name in SIDES else "text"
            yield _problem(name, "type", f"it must be {kind}")
        elif name in SIDES and (_size(form[name]) > file_max_bytes):
            message = f"it is {_size(form[name])} bytes long, the limit is {file_max_bytes}"
            yield _problem(name, "max_length", message)
    for name in (*SIDES, "name", "licence"):
        if name not in form:
            yield _problem(name, "required", "the part is missing; add it")


def _strength(form: FormData, wrong: list[FieldProblem]) -> float:
    text = str(form.get("strength", "1.0"))
    try:
        return float(text)
    except ValueError:
        wrong.append(_problem("strength", "type", f"{text[:40]!r} is not a number; write 0.8"))
        return 1.0


def _size(part: object) -> int:
    return part.size or 0 if isinstance(part, UploadFile) else 0


def _copy(form: FormData, scratch: Path, stack: contextlib.ExitStack) -> dict[Side, Path]:
    """Return copies that have names, which are gone with *stack*."""
    scratch.mkdir(parents=True, exist_ok=True)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lora-", dir=scratch))
    files: dict[Side, Path] = {side: Path(folder) / f"{side}.safetensors" for side in SIDES}
    for side, path in files.items():
        part = form[side]
        assert isinstance(part, UploadFile), "looked at before"
        with path.open("wb") as target:
            shutil.copyfileobj(part.file, target, 2**20)
    return files


def _problem(name: str, code: str, message: str) -> FieldProblem:
    pointer = name.replace("~", "~0").replace("/", "~1")
    return FieldProblem(pointer=f"#/{pointer}", code=code, message=message)
