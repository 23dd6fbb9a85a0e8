"""Why a clip is as it is, for people: what `vidmill explain` prints."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from vidmill.client import Explanation

Line = tuple[str, str]


def report(found: "Explanation") -> "Table":
    """Return names and values, one below the other; long texts are wrapped at the screen's edge."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", "", box=None, show_header=False, pad_edge=False)
    for name, value in _lines(found):
        table.add_row(Text(name, "dim"), Text(value, overflow="fold"))
    return table


def pictures(found: "Explanation") -> Iterator[str]:
    """Yield a line for each picture, to print unfolded: a URL with a line break leads nowhere."""
    for frame in found.preview_frames:
        yield f"step {frame.step} of {frame.of}  {frame.url}"


def _lines(found: "Explanation") -> Iterator[Line]:
    yield "task", f"{found.task_id}  {found.status}"
    yield from _words(found)
    yield "seed", f"{found.seed}{'' if found.seed_was_asked_for else ', drawn for you'}"
    guidance = f"guidance {found.guidance_scale:g} and {found.guidance_scale_2:g}"
    yield "recipe", f"{found.steps} steps, {guidance}, flow shift {found.flow_shift:g}"
    for name in ("drawn", "delivered"):
        size = getattr(found, name)
        yield name, f"{size.width}x{size.height}, {size.frames} frames, {size.frame_rate} fps"
    yield "model", ", ".join(_named(found.model))
    for lora in found.loras:
        yield "lora", f"{lora['name']}, strength {lora['strength']:g}"
    if found.files_made_by != found.task_id:
        yield "files made by", found.files_made_by
    if found.timings_s:
        spent = found.timings_s.items()
        yield "seconds", ", ".join(f"{name.replace('_', ' ')} {s:.1f}" for name, s in spent)
    for run in found.attempts:
        yield f"run {run['attempt']}", _run(run)


def _words(found: "Explanation") -> Iterator[Line]:
    """Say what was sent, if the engine read something else, and whose words those are."""
    for name, texts in {"prompt": found.prompt, "avoided": found.negative_prompt}.items():
        if texts.asked not in (None, texts.used):
            yield f"{name}, as sent", str(texts.asked)
        if texts.used:
            yield name, texts.used
    if written := found.enhancement:
        yield "written out by", f"{written.model}, instructions {written.version}"
    for added in found.additions:
        yield f"added by {added['rule']}", str(added["text"])


def _named(model: Mapping[str, str]) -> Iterator[str]:
    """Give name and revision as they are, and of a hash what tells it from others."""
    for name, value in model.items():
        yield value if name == "name" else f"{name.replace('_', ' ')} {value[:12]}"


def _run(run: Mapping[str, Any]) -> str:
    began, ended = (run[name] and datetime.fromisoformat(run[name]) for name in _SPAN)
    parts = [run["outcome"] or "under way"]
    if began and ended:
        parts.append(f"{(ended - began).total_seconds():.1f} s")
    error = f": {run['error_code']}: {run['error_message']}" if run["error_code"] else ""
    return ", ".join(parts) + error


_SPAN = ("started_at", "ended_at")
