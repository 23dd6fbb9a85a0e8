"""`vidmill storyboard`: a file of shots in, one long clip out; shots replaced afterwards."""

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
        refuse_overwrite(output, force=force)
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


def register(app: typer.Typer) -> None:
    app.add_typer(storyboard, name="storyboard", rich_help_panel="Clips")


def read_file(path: Path) -> dict[str, Any]:
    """Return the arguments of `storyboards.create`: the body of the API, as TOML or JSON.

    Raises:
        CommandError: It cannot be read, or holds no list of shots.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # of either format, and of UTF-8
        raise CommandError(f"{path} is not as its name says: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("shots"), list):
        raise CommandError(f"{path} has no list of shots; in TOML each begins with [[shots]]")
    return found


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
    told: set[str] = set()

    def tell(news: "Storyboard") -> None:
        """Say each state of the whole and each end of a shot once."""
        ended = sum(shot.status == "completed" for shot in news.shots)
        line = f"{news.storyboard_id}: {news.state}, {ended} of {len(news.shots)} shots"
        if line not in told:
            told.add(line)
            term.note(line)

    done = client.storyboards.wait(board.storyboard_id, on_progress=tell, timeout_s=timeout_s)
    path = client.storyboards.save(done, output or Path(f"{done.storyboard_id}.mp4"))
    if term.is_json:
        term.document({"file": str(path), **done.model_dump(mode="json")})
    else:
        term.out.print(f"{path}  {done.duration:g} s", markup=False)


def _show(term: Terminal, board: "Storyboard") -> None:
    if term.is_json:
        term.document(board.model_dump(mode="json"))
        return
    from rich.markup import escape
    from rich.table import Table

    term.out.print(
        f"{board.storyboard_id}  {board.state}  {board.progress:.0%}  {board.duration:g} s"
        f"  {board.price.credits} credits",
        markup=False,
    )
    if board.error:
        term.out.print(f"{board.error.code}: {board.error.message}", markup=False)
    table = Table("shot", "task", "status", "length", "fade", "prompt", box=None, pad_edge=False)
    for shot in board.shots:
        length, fade = f"{shot.duration:g} s", f"{shot.crossfade:g} s" if shot.crossfade else "cut"
        said = escape(shot.prompt or "(deleted)")
        table.add_row(str(shot.number), shot.task_id, shot.status, length, fade, said)
    term.out.print(table)
