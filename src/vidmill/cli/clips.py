"""`vidmill generate`, `status`, `result`, … and what ends or repeats a task: one at a time."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vidmill.cli.options import Force, Json, OutFile, TaskId, terminal
from vidmill.cli.output import CommandError, Terminal, refuse_overwrite, reported

if TYPE_CHECKING:
    from vidmill.client import ClipRequest, Task, Video, Vidmill

PANEL = "Clips"

TaskFilter = Literal["queued", "processing", "completed", "failed", "cancelled"]
"""As in the SDK, which is not imported for `--help`."""


def generate(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What to show.", show_default=False)],
    *,
    output: OutFile = None,
    duration: Annotated[float, typer.Option(help="Length in seconds.")] = 5.0,
    resolution: Annotated[str, typer.Option(help="480p or 720p.")] = "720p",
    aspect_ratio: Annotated[str, typer.Option(help="16:9, 9:16, 1:1, 4:3 or 3:4.")] = "16:9",
    frame_rate: Annotated[int | None, typer.Option(help="Frames per second.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same clip.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What to avoid.")] = None,
    style: Annotated[str | None, typer.Option(help="Visual style.")] = None,
    camera: Annotated[
        str | None, typer.Option(help="How the camera moves: static, pan_left, orbit, …")
    ] = None,
    lora: Annotated[
        str | None, typer.Option(help="Brand style, with its strength if you like: acme:0.8.")
    ] = None,
    enhance: Annotated[
        bool, typer.Option("--enhance", help="Let the server's language model write it out.")
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Make a new clip even if an identical one is there.")
    ] = False,
    timeout: Annotated[float | None, typer.Option(help="Longest wait, seconds.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Submit and return.")] = False,
    force: Force = False,
    is_json: Json = False,
) -> None:
    """Make a clip and save it."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        from vidmill.client import ClipRequest

        refuse_overwrite(output, force=force)
        clip = ClipRequest(
            prompt=prompt,
            duration_s=duration,
            resolution=resolution,
            aspect_ratio=aspect_ratio,
            frame_rate=frame_rate,
            seed=seed,
            negative_prompt=negative_prompt,
            style=style,
            camera=camera,
            lora=None if lora is None else _lora(lora),
            enhance=enhance,
            cache=not no_cache,
        )
        if no_wait:
            _show_task(term, client.submit(clip))
        else:
            _make(term, client, clip, output=output, timeout_s=timeout)


def _lora(text: str) -> dict[str, Any]:
    from vidmill.domain.lora import read_choice

    try:
        return read_choice(text)
    except ValueError as error:
        raise CommandError(f"--lora: {error}") from error


def status(context: typer.Context, task_id: TaskId, is_json: Json = False) -> None:
    """Say where a task stands."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        _show_task(term, client.task(task_id))


def explain(context: typer.Context, task_id: TaskId, is_json: Json = False) -> None:
    """Say why a clip is as it is: prompt as read, seed, steps, model, and where its time went."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        found = client.explain(task_id)
        if is_json:
            term.document(found.model_dump(mode="json"))
            return
        from vidmill.cli.explained import pictures, report

        term.out.print(report(found))
        for line in pictures(found):
            term.out.print(line, markup=False, soft_wrap=True)


def result(
    context: typer.Context,
    task_id: TaskId,
    *,
    output: OutFile = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is finished.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Longest wait, seconds.")] = None,
    variant: Annotated[str, typer.Option(help="video, poster or preview.")] = "video",
    force: Force = False,
    is_json: Json = False,
) -> None:
    """Save the clip of a task."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        refuse_overwrite(output, force=force)
        if wait:
            video = _wait(term, client, client.task(task_id), timeout_s=timeout)
        else:
            video = client.result(task_id)
        path = output or Path(f"{task_id}{SUFFIXES.get(variant, '.mp4')}")
        refuse_overwrite(path, force=force)
        _show_saved(term, video, video.save(path, variant=variant))


def cancel(context: typer.Context, task_id: TaskId, is_json: Json = False) -> None:
    """Stop a task: a queued one at once, a running one within a denoising step."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        _show_task(term, client.cancel(task_id))


def run_next(context: typer.Context, task_id: TaskId, is_json: Json = False) -> None:
    """Put a queued task before your other queued ones."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        _show_task(term, client.run_next(task_id))


def retry(context: typer.Context, task_id: TaskId, is_json: Json = False) -> None:
    """Make a finished task once more, with the same seed, as a new task."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        _show_task(term, client.retry(task_id))


def delete(context: typer.Context, task_id: TaskId, is_json: Json = False) -> None:
    """Delete a task and its files for good; a running one is stopped."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        client.delete(task_id)
        if is_json:
            term.document({"task_id": task_id, "deleted": True})
        else:
            term.out.print(f"{task_id}  deleted", markup=False)


def list_tasks(
    context: typer.Context,
    *,
    state: Annotated[TaskFilter | None, typer.Option("--status", help="Only these.")] = None,
    reference: Annotated[str | None, typer.Option(help="Client reference.")] = None,
    search: Annotated[str | None, typer.Option(help="In prompt or client reference.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 20,
    is_json: Json = False,
) -> None:
    """List tasks, the newest first."""
    import itertools

    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        pages = client.tasks(
            status=state, client_reference=reference, q=search, page_size=min(limit, 100)
        )
        tasks = list(itertools.islice(pages, limit))
        if is_json:
            term.document([task.model_dump(mode="json") for task in tasks])
        else:
            term.out.print(_table(tasks))


SUFFIXES = {"video": ".mp4", "poster": ".jpg", "preview": ".webp"}


def register(app: typer.Typer) -> None:
    commands: dict[str, Callable[..., None]] = {
        "generate": generate,
        "status": status,
        "explain": explain,
        "result": result,
        "cancel": cancel,
        "run-next": run_next,
        "retry": retry,
        "delete": delete,
        "list": list_tasks,
    }
    for name, function in commands.items():
        app.command(name, rich_help_panel=PANEL)(function)


def _make(
    term: Terminal,
    client: "Vidmill",
    clip: "ClipRequest",
    *,
    output: Path | None,
    timeout_s: float | None,
) -> None:
    started = time.monotonic()
    task = client.submit(clip)
    video = _wait(term, client, task, timeout_s=timeout_s)
    path = video.save(output or Path(f"{task.task_id}.mp4"))
    _show_saved(term, video, path, seconds=time.monotonic() - started)


def _wait(term: Terminal, client: "Vidmill", task: "Task", *, timeout_s: float | None) -> "Video":
    from vidmill.cli.progress import Bars

    try:
        task = client.task(task.task_id)  # says the prompt and the number of steps
        prompt = str((task.request or {}).get("prompt") or task.task_id)
        with Bars(term.err, [prompt]) as bars:
            return client.wait(
                task, on_progress=lambda news: bars.show(0, news), timeout_s=timeout_s
            )
    except KeyboardInterrupt:
        term.note(
            f"interrupted; the task goes on. Fetch it with: vidmill result {task.task_id} --wait"
            f"\nor stop it with: vidmill cancel {task.task_id}"
        )
        raise


def _show_task(term: Terminal, task: "Task") -> None:
    from vidmill.cli.progress import describe

    if term.is_json:
        term.document(task.model_dump(mode="json"))
        return
    term.out.print(f"{task.task_id}  {describe(task)}  {task.progress:.0%}", markup=False)
    if task.error:
        term.out.print(f"  {task.error.code}: {task.error.message}", markup=False)


def _show_saved(
    term: Terminal, video: "Video", path: Path, *, seconds: float | None = None
) -> None:
    facts: dict[str, Any] = {
        "task_id": video.task_id,
        "file": str(path),
        "width": video.result.width,
        "height": video.result.height,
        "duration": video.result.duration,
        "size_bytes": path.stat().st_size,
        "seed": video.seed,
    }
    if seconds is not None:
        facts["seconds"] = round(seconds, 2)
    if term.is_json:
        term.document(facts | {"task": video.task.model_dump(mode="json")})
        return
    took = "" if seconds is None else f", made in {seconds:.1f} s"
    term.out.print(
        f"{path}  {video.result.width}x{video.result.height}, {video.result.duration:g} s, "
        f"{path.stat().st_size / 1e6:.2f} MB, seed {video.seed}{took}",
        markup=False,
    )


def _table(tasks: "list[Task]") -> Any:
    from rich.markup import escape
    from rich.table import Table

    from vidmill.cli.progress import describe

    table = Table(box=None, pad_edge=False)
    for name in ("task", "status", "age", "ran"):
        table.add_column(name, no_wrap=True)
    table.add_column("note")
    for task in tasks:
        percent = f" {task.progress:.0%}" if task.status == "processing" else ""
        ran = "" if task.running_s is None else f"{task.running_s:.1f} s"
        note = escape(task.error_message or task.client_reference or task.prompt or "")
        table.add_row(task.task_id, describe(task) + percent, _age(task), ran, note)
    return table


def _age(task: "Task") -> str:
    """Return how long ago *task* was handed in, in its largest whole unit."""
    if task.created_at is None:
        return ""
    seconds = max(0, int(time.time() - task.created_at.timestamp()))
    for unit, size in {"d": 86400, "h": 3600, "m": 60}.items():
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
