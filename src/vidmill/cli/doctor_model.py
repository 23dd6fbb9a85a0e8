"""What `vidmill doctor` says of the model: its files, or its server, and the GPUs it is for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from vidmill.cli.finding import Finding
from vidmill.cli.output import Terminal

if TYPE_CHECKING:
    from vidmill.domain.layout import MemoryPlan, Need
    from vidmill.domain.profile import ModelProfile
    from vidmill.engines.gpus import Gpu
    from vidmill.settings import Settings

_GB = 1e9


def model_findings(_term: Terminal) -> Iterable[Finding]:
    """Say whether the model is there, and whether the GPUs here can hold it."""
    try:
        from pydantic import ValidationError

        from vidmill.engines.folder import describe_model
        from vidmill.profiles import load_profile
        from vidmill.settings import Settings
    except ImportError:
        return
    try:
        settings = Settings()
        profile = load_profile(settings.profile)
    except ValidationError as error:
        yield Finding(
            name="settings",
            state="fail",
            detail="; ".join(problem["msg"] for problem in error.errors()),
            remedy="see docs/settings.md and `vidmill config show`",
        )
        return
    except (LookupError, ValueError) as error:
        remedy = "set VIDMILL_PROFILE; `vidmill models` lists what there is"
        yield Finding(name="model", state="fail", detail=str(error), remedy=remedy)
        return
    if profile.remote is not None:
        yield _remote_model(profile.name, settings.remote_url or profile.remote.url)
        return
    status = describe_model(profile, settings.model_path)
    problems = "; ".join(str(finding) for finding in status.findings)
    where = status.path or status.source
    yield Finding(
        name="model",
        state="ok" if status.is_installed else "fail",
        detail=f"{profile.name} in {where}{': ' if problems else ''}{problems}",
        remedy="" if status.is_installed else "see `vidmill models`; set VIDMILL_MODEL_PATH",
    )
    yield from _gpus(profile, settings)


def _remote_model(name: str, url: str) -> Finding:
    from urllib.parse import urlsplit

    if not url:
        return Finding(
            name="model",
            state="fail",
            detail=f"{name} is drawn by a server, and none is named",
            remedy="set VIDMILL_REMOTE_URL to its address, http://gpu7:8000/v1",
        )
    return Finding(
        name="model", state="ok", detail=f"{name} is drawn by the server {urlsplit(url).hostname}"
    )


def _gpus(profile: "ModelProfile", settings: "Settings") -> Iterable[Finding]:
    try:
        from vidmill.engines.gpus import cuda_of_torch, visible_gpus
    except ImportError:
        return  # the worker extra says so already
    from vidmill.domain.devices import devices_of
    from vidmill.profiles import resolve_source

    yield from gpu_findings(
        profile,
        resolve_source(profile, settings.model_path),
        devices=devices_of(settings.device),
        layout=settings.layout,
        gpus=visible_gpus(),
        cuda=cuda_of_torch(),
    )


def gpu_findings(
    profile: "ModelProfile",
    source: str,
    *,
    devices: Sequence[str],
    layout: str,
    gpus: "Mapping[str, Gpu]",
    cuda: str | None,
) -> Iterable[Finding]:
    """Say whether *profile* fits the *gpus* that *devices* and *layout* (settings) ask for.

    *gpus* are those there are, by device (`cuda:0`). *cuda* is the version that torch is built for;
    None = it is built without. The files at *source* are counted if they are there.
    """
    first = {"auto": ["cuda:0"] if gpus else [], "cuda": ["cuda:0"], "cpu": []}
    wanted = [name for device in devices for name in first.get(device, [device])]
    if not wanted:
        yield _without_gpu(profile, is_there=bool(gpus), cuda=cuda)
    for device in wanted:
        if device in gpus:
            yield _fit(profile, source, gpus[device], layout=layout, share=len(wanted))
        else:
            yield Finding(
                name="gpu",
                state="fail",
                detail=f"{device} is not there; torch sees {_seen(gpus, cuda)}",
                remedy="set VIDMILL_DEVICE to what is there, or see what `nvidia-smi` says",
            )


def _without_gpu(profile: "ModelProfile", *, is_there: bool, cuda: str | None) -> Finding:
    why = "VIDMILL_DEVICE=cpu" if is_there else f"torch sees {_seen({}, cuda)}"
    return Finding(
        name="gpu",
        state="ok" if profile.is_toy else "warn",
        detail=f"none is used ({why}); {profile.name} is drawn on the CPU",
        remedy=""
        if profile.is_toy
        else "a clip takes days so; if clips are to be made here, it takes a GPU that `nvidia-smi`"
        " shows and torch with CUDA",
    )


def _seen(gpus: "Mapping[str, Gpu]", cuda: str | None) -> str:
    return ", ".join(gpus) or ("no GPU" if cuda else "no GPU: it is built without CUDA")


def _fit(profile: "ModelProfile", source: str, gpu: "Gpu", *, layout: str, share: int) -> Finding:
    from vidmill.domain.errors import ModelInvalid
    from vidmill.engines.anatomy import plan_of
    from vidmill.engines.gpus import can_multiply_fp8

    about = (
        f"{gpu.device} is {gpu.card}, {gpu.free_bytes / _GB:.1f} of {gpu.total_bytes / _GB:.1f} GB"
        " free"
    )
    if profile.gemm == "fp8" and not can_multiply_fp8(gpu):
        return Finding(
            name="gpu",
            state="fail",
            detail=f"{about}: {profile.name} computes in 8-bit floats, which it cannot",
            remedy="take another profile, or a GPU of compute capability 8.9 or more",
        )
    try:
        free = plan_of(profile, source, device_bytes=gpu.free_bytes, gpus=share)
        total = plan_of(profile, source, device_bytes=gpu.total_bytes, gpus=share)
    except ModelInvalid:
        return Finding(name="gpu", state="ok", detail=about)  # what it is the model's line says
    found = _fitting(free, layout)
    if found is not None:
        peak = f"{found.peak_bytes / _GB:.1f} GB at most"
        detail = f"{about}: {profile.name} runs {found.layout}, {peak}"
        return Finding(name="gpu", state="ok", detail=detail)
    return _too_small(f"{about}: ", total, layout)


def _fitting(made: "MemoryPlan", layout: str) -> "Need | None":
    """Return the layout that a worker would take of such a device, if it fits."""
    if layout == "auto":
        return made.chosen
    fitting = (need for need in made.needs if need.peak_bytes <= made.usable_bytes)
    return next((need for need in fitting if need.layout == layout), None)


def _too_small(about: str, total: "MemoryPlan", layout: str) -> Finding:
    """Return what to do where a layout does not fit what is free; *total* = if all were."""
    if layout not in ("auto", *(need.layout for need in total.needs)):
        choices = ", ".join(need.layout for need in total.needs)
        return Finding(
            name="gpu",
            state="fail",
            detail=f"{about}the profile has no layout {layout}",
            remedy=f"set VIDMILL_LAYOUT to auto or one of: {choices}",
        )
    verdict = "no layout fits" if layout == "auto" else f"{layout} does not fit"
    if _fitting(total, layout) is not None:
        return Finding(
            name="gpu",
            state="warn",
            detail=f"{about}{verdict} what is free",
            remedy="`nvidia-smi` says who has it; a worker that runs here counts, and is all right",
        )
    remedy = f"take a GPU of {total.smallest_device_bytes / _GB:.1f} GB or more"
    return Finding(
        name="gpu",
        state="fail",
        detail=f"{about}{verdict} it",
        remedy=remedy if layout == "auto" else "set VIDMILL_LAYOUT=auto; see `vidmill models plan`",
    )
