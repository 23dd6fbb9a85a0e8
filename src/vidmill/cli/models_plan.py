"""`vidmill models plan`: which layout of a model fits a GPU, and why."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidmill.cli.options import Json, terminal
from vidmill.cli.output import CommandError, Exit, Terminal, reported

if TYPE_CHECKING:
    from vidmill.domain.layout import MemoryPlan, Need
    from vidmill.domain.profile import ModelProfile

_GB = 1e9
_LEGEND = (
    "GB. experts, text, VAE: rest on each GPU; encode, denoise, decode: on it at most; host:"
    " weights that wait in host memory, for all GPUs; spare: of what is usable"
)


def plan(
    context: typer.Context,
    *,
    gpu_memory: Annotated[
        float, typer.Option("--gpu-memory", help="Memory of one GPU, GB of 10^9 bytes.")
    ],
    gpus: Annotated[int, typer.Option(help="GPUs that share a clip: 1, 2, 4 or 8.")] = 1,
    profile: Annotated[
        str,
        typer.Option(help="Profile to plan for; default: all but toys.", show_default=False),
    ] = "",
    path: Annotated[
        Path | None,
        typer.Option("--path", help="Folder whose files are counted.", show_default=False),
    ] = None,
    duration: Annotated[
        float, typer.Option(help="Seconds of the clips; default: as warmed.", show_default=False)
    ] = 0.0,
    is_json: Json = False,
) -> None:
    """Say which layout of a model fits a GPU, and why: bytes per part, nothing is loaded."""
    term = terminal(context, is_json=is_json)
    with reported(term):
        _check(gpu_memory, gpus)
        plans = [
            (chosen, _plan(chosen, path, device_gb=gpu_memory, gpus=gpus, duration_s=duration))
            for chosen in _profiles(profile)
        ]
        if is_json:
            term.document([_document(*planned) for planned in plans])
        else:
            for chosen, made in plans:
                _print(term, chosen, made)
            term.out.print(_LEGEND, style="dim")
        if any(made.chosen is None for _, made in plans):
            raise typer.Exit(Exit.FAILED)


def _check(gpu_memory: float, gpus: int) -> None:
    from vidmill.domain.layout import GPU_COUNTS

    if not 0 < gpu_memory < 10_000:  # noqa: PLR2004  # beyond, bytes were meant
        raise CommandError(
            f"--gpu-memory {gpu_memory:g} is no size of a GPU; give GB, for example 80"
        )
    if gpus not in GPU_COUNTS:
        counts = ", ".join(map(str, GPU_COUNTS))
        raise CommandError(f"{gpus} GPUs cannot share a clip; give one of: {counts}")


def _profiles(name: str) -> "list[ModelProfile]":
    from vidmill.profiles import all_profiles, load_profile

    if not name:
        return [p for p in all_profiles() if p.params_m and p.remote is None]
    try:
        profile = load_profile(name)
    except (LookupError, ValueError) as error:
        raise CommandError(str(error)) from error
    if profile.remote is not None:
        raise CommandError(f"{name} is drawn by another server: no memory of this one is needed")
    return [profile]


def _plan(
    profile: "ModelProfile", path: Path | None, *, device_gb: float, gpus: int, duration_s: float
) -> "MemoryPlan":
    from vidmill.domain.errors import ModelInvalid
    from vidmill.engines.anatomy import plan_of
    from vidmill.profiles import resolve_source

    if path is not None and not path.is_dir():
        raise CommandError(f"there is no folder {path}")
    source = resolve_source(profile, str(path.absolute()) if path else "")
    bytes_each = round(device_gb * _GB)
    try:
        return plan_of(profile, source, device_bytes=bytes_each, gpus=gpus, duration_s=duration_s)
    except ModelInvalid as error:
        raise CommandError(str(error)) from error


def _document(profile: "ModelProfile", made: "MemoryPlan") -> dict[str, Any]:
    return {
        "profile": profile.name,
        "gpus": made.gpus,
        "device_bytes": made.device_bytes,
        "usable_bytes": made.usable_bytes,
        "size": str(made.size),
        "num_frames": made.num_frames,
        "layout": made.chosen.layout if made.chosen else None,
        "smallest_device_bytes": made.smallest_device_bytes,
        "layouts": [
            {
                "layout": need.layout,
                "fits": need.peak_bytes <= made.usable_bytes,
                "spare_bytes": _spare(need, made),
                "resting_bytes": dict(need.resting),
                "peak_bytes": dict(need.peaks),
                "host_bytes": need.host_bytes,
                "loading_bytes": need.loading_bytes,
            }
            for need in made.needs
        ],
    }


def _print(term: Terminal, profile: "ModelProfile", made: "MemoryPlan") -> None:
    from rich.table import Table

    found = f"[green]{made.chosen.layout}[/green]" if made.chosen else "[red]none fits[/red]"
    each = f"{made.gpus} GPUs of" if made.gpus > 1 else "one GPU of"
    term.out.print(
        f"[bold]{profile.name}[/bold]: {found} on {each} {made.device_bytes / _GB:g} GB"
        f" ({_gb(made.usable_bytes)} usable), {made.size} x {made.num_frames} frames"
    )
    table = Table("layout", box=None, pad_edge=False)
    for column in _NUMBERS:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for need in made.needs:
        cells = (*need.resting.values(), *need.peaks.values(), need.host_bytes)
        is_chosen = need is made.chosen
        verdict = "[green]chosen[/green]" if is_chosen else _verdict(need, made)
        spare = f"{_spare(need, made) / _GB:.1f}"
        style = "bold" if is_chosen else None
        table.add_row(need.layout, *map(_gb, cells), spare, verdict, style=style)
    term.out.print(table)
    if made.chosen is not None and made.chosen.loading_bytes:
        loading = _gb(made.chosen.loading_bytes)
        term.out.print(f"while it loads, {loading} GB of weights lie in host memory")
    if made.chosen is None:
        gb = math.ceil(made.smallest_device_bytes / _GB * 10) / 10  # rounded down it would not fit
        term.out.print(f"the smallest GPU that will do has {gb:.1f} GB")
    term.out.print()


_NUMBERS = ("experts", "text", "VAE", "encode", "denoise", "decode", "host", "spare")


def _verdict(need: "Need", made: "MemoryPlan") -> str:
    return "fits" if _spare(need, made) >= 0 else "[red]too large[/red]"


def _spare(need: "Need", made: "MemoryPlan") -> int:
    return made.usable_bytes - need.peak_bytes


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / _GB:.1f}" if size_bytes >= _GB / 10 or not size_bytes else "< 0.1"
