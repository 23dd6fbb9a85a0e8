from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.attention_dispatch import AttentionBackendName
from torch import Tensor

from tests.attention import installed
from vidmill.domain.errors import ModelInvalid
from vidmill.engines.attention import choose_attention

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def experts() -> list[Any]:
    return [
        WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4,
            text_dim=16, freq_dim=32, ffn_dim=64, num_layers=1, rope_max_seq_len=64,
        )
        for _ in range(2)
    ]  # fmt: skip


def chosen(experts: list[Any], *names: str) -> str:
    return choose_attention(experts, names, device=CPU, dtype=torch.float32)


def set_on(expert: Any) -> set[str]:
    processors = expert.attn_processors.values()
    return {AttentionBackendName(processor._attention_backend).value for processor in processors}


def test_the_first_backend_that_runs_is_set_on_both_experts(experts: list[Any]) -> None:
    assert chosen(experts, "flash", "_native_math", "native") == "_native_math"
    assert [set_on(expert) for expert in experts] == [{"_native_math"}] * 2


def test_a_backend_that_would_download_code_is_passed_over(experts: list[Any]) -> None:
    assert chosen(experts, "_flash_3_hub", "sage_hub", "native") == "native"


def test_a_backend_whose_first_call_fails_is_passed_over(
    experts: list[Any],
) -> None:
    def kernel(**_: Tensor) -> Tensor:
        raise RuntimeError("no kernel image is available for execution on the device")

    with installed(kernel) as name:
        assert chosen(experts, name, "native") == "native"


@pytest.mark.parametrize("factor", [2.0, float("nan")])
def test_a_backend_that_computes_something_else_is_passed_over(
    experts: list[Any], factor: float
) -> None:
    with installed(lambda query, key, value: value * factor) as name:  # noqa: ARG005  # by keyword
        assert chosen(experts, name, "native") == "native"


def test_when_none_runs_the_message_names_them_and_the_remedy(experts: list[Any]) -> None:
    with pytest.raises(ModelInvalid, match=r"flash, sage_hub .*add `native`"):
        chosen(experts, "flash", "sage_hub")
