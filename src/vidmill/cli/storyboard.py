"""`vidmill storyboard`: a file of shots in, one long clip out; shots replaced afterwards."""

import itertools
import json
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidmill.cli.clips import SUFFIXES
from vidmill.cli.options import Force, Json, terminal
from vidmill.cli.output import CommandError, Terminal, refuse_overwrite, reported

if TYPE_CHECKING:
    from vidmill.client import Storyboard, Vidmill

storyboard = typer.Typer(help="Several shots joined into one long clip.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="Storyboard id, sb_…", show_default=False)]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write; default: ID.mp4.")
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Queue the shots and return.")]
Timeout = Annotated[float | None, typer.Option(help="Longest wait, seconds.")]

PIPED_CELLS = 2000
"""Width of tables that no terminal shows: nothing is cut."""

READERS: Mapping[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": json.loads}


@storyboard.command("make")
def make(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="TOML or JSON.", show_default=False)],
    *,
    output: Output = None,
    timeout: Timeout = None,
    no_wait: NoWait = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what it costs and how long it is; make nothing.")
    ] = False,
    force: Force = False,
    is_json: Json = False,
) -> None:
    """Render the shots of a file and join them."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        refuse_overwrite(output, force=force)
        asked = read_file(file)
        if estimate:
            told = client.storyboards.estimate(**asked)
            if is_json:
                term.document(told.model_dump(mode="json"))
            else:
                term.out.print(f"{told.duration:g} s, {told.price.credits} credits", markup=False)
            return
        board = client.storyboards.create(**asked)
        _follow(term, client, board, output=output, timeout_s=timeout, is_waiting=not no_wait)


@storyboard.command("status")
def status(context: typer.Context, storyboard_id: Id, is_json: Json = False) -> None:
    """Say where a storyboard and its shots stand."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        _show(term, client.storyboards.get(storyboard_id))


@storyboard.command("result")
def result(
    context: typer.Context,
    storyboard_id: Id,
    *,
    output: Output = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is joined.")] = False,
    timeout: Timeout = None,
    variant: Annotated[str, typer.Option(help="video, poster or preview.")] = "video",
    force: Force = False,
    is_json: Json = False,
) -> None:
    """Save the joined clip; without --wait, while a shot is made anew, the earlier one."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        path = output or Path(f"{storyboard_id}{SUFFIXES.get(variant, '.mp4')}")
        refuse_overwrite(path, force=force)
        board = client.storyboards.get(storyboard_id)
        if wait:
            board = _wait(term, client, board, timeout_s=timeout)
        _save(term, client, board, path, variant=variant)


@storyboard.command("list")
def list_storyboards(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 20,
    is_json: Json = False,
) -> None:
    """List storyboards, the newest first."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        boards = list(itertools.islice(client.storyboards.list(), limit))
        if is_json:
            term.document([board.model_dump(mode="json") for board in boards])
            return
        rows = [
            (b.storyboard_id, b.state, f"{b.progress:.0%}", f"{b.duration:g} s", b.name or "")
            for b in boards
        ]
        _print_table(term, ("storyboard", "state", "done", "length", "name"), rows)


@storyboard.command("replace")
def replace(
    context: typer.Context,
    storyboard_id: Id,
    number: Annotated[int, typer.Argument(min=1, help="Of the shot.", show_default=False)],
    *,
    prompt: Annotated[str | None, typer.Option(help="What to show instead.")] = None,
    seed: Annotated[int | None, typer.Option(help="Absent: a new one.")] = None,
    duration: Annotated[float | None, typer.Option(help="Length in seconds.")] = None,
    crossfade: Annotated[float | None, typer.Option(help="Into the next shot, seconds.")] = None,
    output: Output = None,
    timeout: Timeout = None,
    no_wait: NoWait = False,
    force: Force = False,
    is_json: Json = False,
) -> None:
    """Make one shot anew and join the whole again; the other clips are used as they are."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        if not no_wait:
            refuse_overwrite(output or _default(storyboard_id), force=force)
        changes: dict[str, Any] = {"seed": seed, "duration_s": duration}
        board = client.storyboards.replace_shot(
            storyboard_id,
            number,
            prompt=prompt,
            crossfade=crossfade,
            **{name: value for name, value in changes.items() if value is not None},
        )
        _follow(term, client, board, output=output, timeout_s=timeout, is_waiting=not no_wait)


@storyboard.command("cancel")
def cancel(context: typer.Context, storyboard_id: Id, is_json: Json = False) -> None:
    """Stop every shot under way; clips that are there stay, as tasks."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        _show(term, client.storyboards.cancel(storyboard_id))


@storyboard.command("delete")
def delete(context: typer.Context, storyboard_id: Id, is_json: Json = False) -> None:
    """Forget a storyboard that is over, and its files; the tasks of its shots stay."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        client.storyboards.delete(storyboard_id)
        if is_json:
            term.document({"storyboard_id": storyboard_id, "deleted": True})
        else:
            term.out.print(f"{storyboard_id}  deleted", markup=False)


def register(app: typer.Typer) -> None:
    app.add_typer(storyboard, name="storyboard", rich_help_panel="Clips")


def read_file(path: Path) -> dict[str, Any]:
    """Return the arguments of `storyboards.create`: the body of the API, as TOML or JSON.

    Raises:
        CommandError: It cannot be read, or holds no list of shots.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise CommandError(f"{path}: name it .toml or .json, as it is written")
    try:
        found = read(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # of either format, and of UTF-8
        raise CommandError(f"{path} is not as its name says: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("shots"), list):
        raise CommandError(f"{path} has no list of shots; in TOML each begins with [[shots]]")
    if wrong := "".join(f"\n  {place}" for place in _not_json(found)):
        raise CommandError(f"{path} holds what the API has no value for:{wrong}")
    return found


def _not_json(value: object, place: str = "") -> Iterator[str]:
    """Yield where *value* holds a date, or a number that is none: TOML has both, the API neither.

    JSON of Python knows the second, too.
    """
    inside: Mapping[Any, object] = {}
    if isinstance(value, dict):
        inside = value
    elif isinstance(value, list):
        inside = dict(enumerate(value))
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{place}: {value} is no number; write one, or leave it out"
    elif not isinstance(value, str | int | float | None):
        yield f"{place}: {value} is no text; put it in quotes, or leave it out"
    for name, item in inside.items():
        yield from _not_json(item, f"{place}/{name}" if place else str(name))


def _follow(
    term: Terminal,
    client: "Vidmill",
    board: "Storyboard",
    *,
    output: Path | None,
    timeout_s: float | None,
    is_waiting: bool,
) -> None:
    if not is_waiting:
        _show(term, board)
        return
    done = _wait(term, client, board, timeout_s=timeout_s)
    _save(term, client, done, output or _default(board.storyboard_id))


def _wait(
    term: Terminal, client: "Vidmill", board: "Storyboard", *, timeout_s: float | None
) -> "Storyboard":
    """Return the storyboard once it is joined; say how to go on if it is not."""
    from vidmill.cli.progress import StoryboardBar
    from vidmill.client import StoryboardFailed, StoryboardUnfinished

    board_id = board.storyboard_id
    term.note(f"{board_id}: {len(board.shots)} shots, {board.duration:g} s")
    try:
        with StoryboardBar(term.err) as bar:
            return client.storyboards.wait(board_id, on_progress=bar.show, timeout_s=timeout_s)
    except (KeyboardInterrupt, StoryboardUnfinished):
        term.note(
            f"the storyboard goes on. Fetch it with: vidmill storyboard result {board_id} --wait"
            f"\nor stop it with: vidmill storyboard cancel {board_id}"
        )
        raise
    except StoryboardFailed as failed:
        for shot in failed.storyboard.shots:
            if shot.error:
                term.note(f"shot {shot.number}: {shot.error.code}: {shot.error.message}")
                term.note(f"make it anew: vidmill storyboard replace {board_id} {shot.number}")
        raise


def _save(
    term: Terminal, client: "Vidmill", board: "Storyboard", path: Path, *, variant: str = "video"
) -> None:
    client.storyboards.save(board, path, variant=variant)
    if term.is_json:
        term.document({"file": str(path), **board.model_dump(mode="json")})
        return
    size = f"{path.stat().st_size / 1e6:.2f} MB"
    term.out.print(f"{path}  {_facts(board)}, {size}", markup=False)


def _default(storyboard_id: str) -> Path:
    return Path(f"{storyboard_id}.mp4")


def _facts(board: "Storyboard") -> str:
    """Return what the joined clip is like."""
    if board.result is None:
        return f"{board.duration:g} s"
    made = board.result
    return f"{made.width}x{made.height}, {made.duration:g} s, revision {made.revision}"


def _show(term: Terminal, board: "Storyboard") -> None:
    if term.is_json:
        term.document(board.model_dump(mode="json"))
        return
    term.out.print(
        f"{board.storyboard_id}  {board.state}  {board.progress:.0%}  {board.duration:g} s"
        f"  {board.price.credits} credits",
        markup=False,
    )
    if board.error:
        term.out.print(f"{board.error.code}: {board.error.message}", markup=False)
    if board.result:
        term.out.print(f"joined: {_facts(board)}", markup=False)
    rows = []
    for shot in board.shots:
        fade = f"{shot.crossfade:g} s" if shot.crossfade else "cut"
        fade = "" if shot is board.shots[-1] else fade
        said = shot.error.code if shot.error else shot.prompt or "(deleted)"
        length = f"{shot.duration:g} s"
        rows.append((str(shot.number), shot.task_id, shot.status, length, fade, said))
    _print_table(term, ("shot", "task", "status", "length", "fade", "prompt"), rows)


def _print_table(term: Terminal, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a row a line; ids are whole at 80 columns, what is in the last column gives way."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in names[:-1]:
        table.add_column(name, no_wrap=True)
    table.add_column(names[-1])
    for *ids, last in rows:
        table.add_row(*map(Text, ids), Text(last, no_wrap=True, overflow="ellipsis"))
    if not term.out.is_terminal:
        term.out.width = PIPED_CELLS
    term.out.print(table)
