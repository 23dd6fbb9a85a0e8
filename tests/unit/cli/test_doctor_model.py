"""What `vidmill doctor` says of GPUs: whether there are any, and whether the profile fits them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from vidmill.cli.doctor_model import gpu_findings
from vidmill.cli.finding import Finding
from vidmill.domain.profile import Layout
from vidmill.engines.gpus import Gpu, visible_gpus
from vidmill.profiles import load_profile

GB = 10**9
H200 = Gpu(
    device="cuda:0",
    card="NVIDIA H200",
    capability=(9, 0),
    total_bytes=150 * GB,
    free_bytes=149 * GB,
)


def gpu(free_gb: float, total_gb: float, **changes: Any) -> Gpu:
    free_bytes, total_bytes = int(free_gb * GB), int(total_gb * GB)
    return dataclasses.replace(H200, free_bytes=free_bytes, total_bytes=total_bytes, **changes)


def told(
    *gpus: Gpu,
    name: str = "a14b-quality",
    devices: tuple[str, ...] = ("auto",),
    layout: str = "auto",
    cuda: str | None = "13.0",
    **changes: Any,
) -> list[Finding]:
    seen: Mapping[str, Gpu] = {one.device: one for one in gpus}
    profile = dataclasses.replace(load_profile(name), **changes)
    return [
        *gpu_findings(
            profile, "no/model-here", devices=devices, layout=layout, gpus=seen, cuda=cuda
        )
    ]


def test_a_gpu_that_the_profile_fits_is_named_with_its_layout() -> None:
    (found,) = told(H200)
    assert (found.state, found.remedy) == ("ok", "")
    assert found.detail == (
        "cuda:0 is NVIDIA H200, 149.0 of 150.0 GB free: a14b-quality runs resident, 87.1 GB at most"
    )
    (found,) = told(H200, layout="offload")
    assert "runs offload, 18.6 GB at most" in found.detail


def test_memory_that_others_have_is_a_warning_as_a_running_worker_is_one_of_them() -> None:
    (found,) = told(gpu(9, 80))
    assert found.state == "warn"
    assert found.detail.endswith("9.0 of 80.0 GB free: no layout fits what is free")
    assert "nvidia-smi" in found.remedy
    (found,) = told(gpu(60, 80), layout="parked")
    assert (found.state, "parked does not fit what is free" in found.detail) == ("warn", True)


@pytest.mark.parametrize(
    ("layout", "detail", "remedy"),
    [
        ("auto", "no layout fits it", "take a GPU of 19.5 GB or more"),
        ("resident", "resident does not fit it", "VIDMILL_LAYOUT=auto"),
    ],
)
def test_a_gpu_too_small_even_when_it_is_empty_must_be_mended(
    layout: str, detail: str, remedy: str
) -> None:
    (found,) = told(gpu(12, 12), layout=layout)
    assert found.state == "fail"
    assert found.detail.endswith(detail)
    assert remedy in found.remedy


def test_a_layout_that_the_profile_lacks_is_told_with_those_it_has() -> None:
    (found,) = told(H200, layout="fp8", layouts=(Layout.RESIDENT, Layout.PARKED))
    assert found.state == "fail"
    assert found.remedy == "set VIDMILL_LAYOUT to auto or one of: resident, parked"


def test_a_card_without_8_bit_arithmetic_cannot_run_a_profile_that_computes_in_it() -> None:
    (found,) = told(gpu(79, 80, card="NVIDIA A100", capability=(8, 0)), name="a14b-balanced")
    assert found.state == "fail"
    assert "computes in 8-bit floats, which it cannot" in found.detail


def test_each_of_several_gpus_is_looked_at_and_one_that_is_not_there_named() -> None:
    both = told(H200, devices=("cuda:0", "cuda:1"))
    assert [found.state for found in both] == ["ok", "fail"]
    assert both[1].detail == "cuda:1 is not there; torch sees cuda:0"


@pytest.mark.parametrize(
    ("devices", "gpus", "cuda", "why"),
    [
        (("auto",), (), "13.0", "torch sees no GPU"),
        (("auto",), (), None, "torch sees no GPU: it is built without CUDA"),
        (("cpu",), (H200,), "13.0", "VIDMILL_DEVICE=cpu"),
    ],
)
def test_without_a_gpu_the_reason_is_said_and_only_a_toy_is_all_right(
    devices: tuple[str, ...], gpus: tuple[Gpu, ...], cuda: str | None, why: str
) -> None:
    (toy,) = told(*gpus, name="tiny", devices=devices, cuda=cuda)
    assert (toy.state, toy.remedy) == ("ok", "")
    assert toy.detail == f"none is used ({why}); tiny is drawn on the CPU"
    (real,) = told(*gpus, devices=devices, cuda=cuda)
    assert real.state == "warn"
    assert "a clip takes days" in real.remedy


def test_a_gpu_that_is_asked_for_and_missing_must_be_mended() -> None:
    (found,) = told(name="tiny", devices=("cuda",))
    assert (found.state, found.detail) == ("fail", "cuda:0 is not there; torch sees no GPU")


def test_gpus_are_seen_by_the_names_that_torch_has_for_them() -> None:
    assert bool(visible_gpus()) is torch.cuda.is_available()
    assert all(name == one.device for name, one in visible_gpus().items())
