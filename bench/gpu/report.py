"""The figures as Markdown, for docs/benchmarks.md."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bench.gpu.floor import Flops, Rates, floor_s
from bench.gpu.machine import nominal_tflops
from bench.gpu.state import Outcome, State

_REHEARSAL = "**A rehearsal with tiny networks: it shows that the bench runs, and nothing else.**"
_VERSIONS = ("torch", "diffusers", "transformers", "python")


def markdown(state: State) -> str:
    """Return a page of tables, one for each kind of piece that has figures."""
    about = state.about
    done = {name: one for name, one in state.outcomes.items() if one.status == "done"}
    dates = sorted({outcome.date for outcome in state.outcomes.values()})
    when = " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "Nothing run"
    what = ", ".join(f"{name} {about[name]}" for name in _VERSIONS)
    lines = [f"{when}: {about['device']}, {what}; weights: {about['weights']}."]
    if about["scale"] != "true":
        lines.append(f"\n{_REHEARSAL}")
    rates = _rates(state)
    for kind, (title, columns) in _TABLES.items():
        rows = {n: o for n, o in done.items() if n.partition(":")[0] == kind}
        if rows:
            lines += ["", title, "", *_table(columns, rows, rates)]
    lines += _leftovers(state)
    return "\n".join(lines)


Peaks = Mapping[str, tuple[float, float]]
"""TFLOP/s in bfloat16 and FP8, by where the numbers come from."""

Rows = Mapping[str, Callable[[Mapping[str, Any], Peaks], str]]


def _rates(state: State) -> Peaks:
    """Return what shares of the floor are of: the data sheet's rates and the measured ones."""
    rates: dict[str, tuple[float, float]] = {}
    if nominal := nominal_tflops(state.about["device"]):
        rates["data sheet"] = nominal
    machine = state.outcomes.get("machine")
    if machine is not None and machine.status == "done":
        bf16 = machine.values["matmul_bf16_tflops"]
        rates["measured"] = (bf16, machine.values["matmul_fp8_tflops"] or bf16)
    return rates


def _table(columns: Rows, outcomes: Mapping[str, Outcome], rates: Peaks) -> Iterator[str]:
    yield "| piece | " + " | ".join(columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, outcome in outcomes.items():
        cells = (show(outcome.values, rates) for show in columns.values())
        yield f"| {name} | " + " | ".join(cells) + " |"


def _leftovers(state: State) -> Iterator[str]:
    rest = {name: one for name, one in state.outcomes.items() if one.status != "done"}
    if rest:
        yield "\nWithout figures:\n"
    for name, outcome in rest.items():
        status = "stopped in the middle" if outcome.status == "begun" else outcome.status
        yield f"- {name}: {status}{': ' if outcome.reason else ''}{outcome.reason}"


def _value(key: str) -> Callable[[Mapping[str, Any], Peaks], str]:
    return lambda values, _rates: _text(values.get(key))


def _attention(values: Mapping[str, Any], _rates: Peaks) -> str:
    rates = values.get("attention_tflops", {})
    running = [f"{name} {rate}" for name, rate in rates.items() if not isinstance(rate, str)]
    absent = [name for name, rate in rates.items() if isinstance(rate, str)]
    return "; ".join(running + ([f"not here: {', '.join(absent)}"] if absent else []))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return " ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)


def _share(values: Mapping[str, Any], rates: Peaks) -> str:
    """Return floor over measured forward, both experts together, by each kind of rate."""
    if "linear_tflop" not in values:
        return "–"
    flops = Flops(linear=values["linear_tflop"], attention=values["attention_tflop"])
    forwards = [values[f"forward_{name}_s"] for name in ("high", "low")]
    forward_s = sum(forwards) / len(forwards)
    shares = []
    for name, (bf16, fp8) in rates.items():
        linear = fp8 if values["gemm"] == "fp8" else bf16
        floor = floor_s(flops, Rates(linear=linear, attention=bf16))
        shares.append(f"{name} {floor / forward_s:.0%}")
    return "; ".join(shares)


def _clip(values: Mapping[str, Any], _rates: Peaks) -> str:
    if "clip_s" not in values:
        return "–"
    ending = f" (extrapolated from {values['steps']} steps)" if values["is_extrapolated"] else ""
    return f"{values['clip_s']}{ending}"


_SPEED: Rows = {
    "size × frames": lambda values, _: f"{values.get('native', '–')} × {values.get('frames', '–')}",
    "s a step": _value("step_s"),
    "forward, high / low": lambda values, _: (
        f"{_text(values.get('forward_high_s'))} / {_text(values.get('forward_low_s'))}"
    ),
    "share of the floor": _share,
    "decode s": _value("decode_s"),
    "clip s": _clip,
    "weights GB": _value("weights_gb"),
    "planned GB": _value("planned_gb"),
    "peak GB (reserved)": lambda values, _: (
        f"{_text(values.get('peak_gb'))} ({_text(values.get('reserved_gb'))})"
    ),
}

_TABLES: Mapping[str, tuple[str, Rows]] = {
    "machine": (
        "What the device reaches",
        {
            "bf16 TFLOP/s": _value("matmul_bf16_tflops"),
            "FP8 TFLOP/s": _value("matmul_fp8_tflops"),
            "FP8 by rows": _value("matmul_fp8_rows_tflops"),
            "copy GB/s": _value("copy_gb_s"),
            "upload GB/s": _value("upload_gb_s"),
            "attention TFLOP/s": _attention,
        },
    ),
    "step": ("Steps", _SPEED),
    "clip": (
        "Whole clips",
        {"first, second s": _value("whole_clips_s"), "same bytes": _value("same_bytes"), **_SPEED},
    ),
    "fits": ("Layouts under a memory limit", {"fits": _value("fits"), **_SPEED}),
    "match": (
        "Against the eager bfloat16 path, same seed",
        {
            "latents max": _value("latents_max_abs"),
            "mean": _value("latents_mean_abs"),
            "relative": _value("latents_relative"),
            "PSNR dB": _value("psnr_db"),
            "same bytes": _value("same_bytes"),
        },
    ),
    "lora": (
        "Brand LoRAs: a pair of rank 64 on every layer, read for the first time and held",
        {
            "first use s": _value("load_s"),
            "swap s": _value("swap_s"),
            "forward × base": _value("slower"),
            "GB a pair": _value("pair_gb"),
            "base the same afterwards": _value("same_bytes_without"),
            "pair the same again": _value("same_bytes_again"),
        },
    ),
    "cancel": (
        "Cancel, seconds until the device is idle",
        {
            "in a step": _value("in_a_step_s"),
            "in the decode": _value("in_the_decode_s"),
            "s a step": _value("step_s"),
            "next clip the same": _value("same_bytes_afterwards"),
        },
    ),
    "load": (
        "From files to the device",
        {
            "on disk GB": _value("disk_gb"),
            "loaded GB": _value("loaded_gb"),
            "disk GB/s": _value("read_gb_s"),
            "bytes ÷ speed s": _value("bytes_over_speed_s"),
            "cold s": _value("cold_s"),
            "cached s": _value("cached_s"),
        },
    ),
}
