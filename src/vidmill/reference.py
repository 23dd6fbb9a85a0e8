"""Writes the generated reference pages: `python -m vidmill.reference [--check]`.

A test runs `--check`, so a setting, an error code or a route cannot change without its page.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from vidmill.api.metrics import CATALOGUE
from vidmill.api.reference import api_page, errors_page, openapi_document
from vidmill.domain import prompt_rules
from vidmill.settings import Settings, default_data_dir

DOCS = Path(__file__).parents[2] / "docs"


def settings_page() -> str:
    """Return docs/settings.md: every setting, its default, and what it means."""
    lines = [
        "# Settings",
        "",
        "Every setting is an environment variable. `vidmill config show` prints what is in force,",
        "and a value that cannot be is refused at start with its name and the remedy.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = _shown(field.get_default(call_default_factory=True, validated_data={}))
        lines.append(f"| `VIDMILL_{name.upper()}` | {default} | {field.description} |")
    return "\n".join([*lines, ""])


def _shown(value: object) -> str:
    if value == default_data_dir():
        return "`$XDG_DATA_HOME/vidmill`, else `~/.local/share/vidmill`"
    text = json.dumps(value) if isinstance(value, tuple) else str(value)
    return f"`{text}`" if text.strip("*") else "empty"


def metrics_page() -> str:
    """Return docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "`GET /metrics` answers in the text format of Prometheus: to this machine alone, or, where",
        "`VIDMILL_METRICS_TOKEN` is set, to whoever sends `Authorization: Bearer <token>`.",
        "Each process of the API counts its own requests. Queues, workers and breakers are read",
        "from the database at each scrape, so every process says the same of them: take one, or",
        "their maximum. No label holds an id, a tenant or a prompt.",
        "",
        "| metric | kind | labels | meaning |",
        "|---|---|---|---|",
    ]
    for entry in CATALOGUE:
        labels = ", ".join(f"`{name}`" for name in entry.labels)
        lines.append(f"| `{entry.name}` | {entry.kind} | {labels} | {entry.meaning} |")
    return "\n".join(
        [*lines, "", "Beside these, `process_*` says what the process itself uses.", ""]
    )


def prompts_page() -> str:
    """Return docs/prompts.md: every rule and the words it adds."""
    named = (("style.", prompt_rules.STYLES), ("camera.", prompt_rules.CAMERAS))
    rules = [(head + name, words) for head, table in named for name, words in table.items()]
    rules += [(f"style.{name}.camera", words) for name, words in prompt_rules.STYLE_CAMERAS.items()]
    rules.append(("physics", prompt_rules.PHYSICS))
    lines = [_PROMPTS_INTRO.format(version=prompt_rules.VERSION)]
    lines += [f"| `{rule}` | {' | '.join(words.values())} |" for rule, words in rules]
    return "\n".join([*lines, _PROMPTS_END])


_PROMPTS_INTRO = """\
# What is added to prompts

A prompt goes to the model as it was sent. Words are added only where a request asks for
them, by the rules below, behind the caller's own words:

| field | adds | order |
|---|---|---|
| `style` | a look | first |
| `camera` | one move of the camera | then |
| `enable_physics` | a wish for plausible motion | last |
| `language` | nothing: it says in which language the others speak (`en`, `zh`, `ja`) | |

The task lists each addition (`additions`: rule, field, words) with
`prompt_rules_version`, and `explain` shows the prompt as asked and as used. The rules
stand in `src/vidmill/domain/prompt_rules.py`; whoever changes a word raises their
version, and tasks of old keep the words they were made with. The prompt with its
additions is what determines the pixels, so it is also what the cache goes by.

Only models whose profile says `has_prompt_rules` take these fields: Wan2.2 does, the
tiny model does not and refuses them by name. The capabilities list `styles` and
`cameras`.

**Language.** Without `language`, the prompt's own: Japanese if it has kana, Chinese if
it has Han characters, English otherwise, and also where Latin words outnumber those
characters (an English prompt that quotes a Chinese sign). A Japanese prompt without
kana reads as Chinese: name the language.

**Two cameras.** One clip has one `camera`. Some styles bring one of their own
(`style.….camera`); it gives way to a camera that the request names. What the caller's
own words say of a camera is not read, and stays: name the move in one of the two
places.

**Where the camera's words come from.** Wan2.2's prompt rewriter
(`wan/utils/system_prompt.py` of its repository, read at commit 42bf4cf) is told to keep
camera moves, in these words: 镜头后拉 "pulls back", 前推 "pushes forward", 左移 "moves left",
上摇 "pans up", 下摇 "tilts downward". `dolly_*`, `truck_*` and `tilt_*` follow it; the
other terms are usual film language. How well the model obeys each has not been
measured.

## Written out by a language model

With `"enhance": true`, `generate` and `regenerate` have a language model write the
prompt out first. It is off until the operator sets `VIDMILL_ENHANCER_URL` and
`VIDMILL_ENHANCER_MODEL`, an OpenAI-compatible chat endpoint, and is refused by name
until then; `enhance` in the capabilities says so. **Such prompts leave Vidmill for that
endpoint**; nothing else is sent, and no log holds them.

An estimate takes `enhance` and asks nobody: it says `would_be_enhanced`, and shows no
prompt. Batches, storyboards and the other dialects refuse it by name.

Our instructions (`src/vidmill/domain/enhancing.py`, one per language, versioned) ask
for one shot, more visible detail, and nothing changed. The answer is taken as the model
gives it, if it is one text of at most `VIDMILL_ENHANCER_MAX_CHARS` characters in the
prompt's language; use a model, or a server setting, that does not print its thoughts.
Whether it kept to the instructions is not checked: read it.

The task keeps the prompt as it was sent in `request`; `explain` shows what was made of
it (`enhancement`: text, model, version of the instructions) beside the words of rules,
which follow it. Without a usable answer within `VIDMILL_ENHANCER_TIMEOUT_S` the request
is refused with 503 `enhancer_unavailable`, and nothing is queued or charged; SDK and
command line try once more, and leave it at that. The log has `enhancer_unavailable` with
the reason, and `prompt_enhanced` with the seconds it took. Why: [ADR
0027](adr/0027-enhanced-or-refused.md).

## Rules, version {version}

| rule | English | Chinese | Japanese |
|---|---|---|---|"""

_PROMPTS_END = """
The model's default negative prompt is added by the rule `negative.default`; a request opts out with
`"use_default_negative_prompt": false`.
"""


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "metrics.md": metrics_page,
    "prompts.md": prompts_page,
    "api.md": api_page,
    "openapi.json": openapi_document,
}


def stale_pages(docs: Path = DOCS) -> list[str]:
    """Return the names of pages whose file differs from what would be written now."""
    return [
        name
        for name, page in PAGES.items()
        if not (docs / name).exists() or (docs / name).read_text(encoding="utf-8") != page()
    ]


def main(arguments: list[str]) -> int:
    stale = stale_pages()
    if "--check" in arguments:
        for name in stale:
            sys.stderr.write(f"docs/{name} is out of date; run `make docs`\n")
        return 1 if stale else 0
    for name in stale:
        (DOCS / name).write_text(PAGES[name](), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
