"""What `vidmill explain` tells of a clip of which there is everything to tell."""

from rich.console import Console

from vidmill.cli.explained import pictures, report
from vidmill.client import Explanation

FOUND = Explanation.model_validate(
    {
        "task_id": "t2v_1",
        "status": "completed",
        "prompt": {"asked": "a [red] ball", "used": "a [red] ball in the rain, acme style"},
        "negative_prompt": {"asked": None, "used": "blur"},
        "enhancement": {"text": "a [red] ball in the rain", "model": "writer", "version": "3"},
        "additions": [{"rule": "lora.acme", "target": "prompt", "text": "acme style"}],
        "seed": 7,
        "seed_was_asked_for": False,
        "steps": 40,
        "guidance_scale": 3.0,
        "guidance_scale_2": 4.0,
        "flow_shift": 12.0,
        "drawn": {"width": 832, "height": 480, "frames": 49, "frame_rate": 16},
        "delivered": {"width": 832, "height": 480, "frames": 72, "frame_rate": 24},
        "model": {"name": "wan", "sha256": "0123456789abcdef" * 4},
        "loras": [{"name": "acme", "strength": 0.8}],
        "files_made_by": "t2v_0",
        "timings_s": {"encoding_text": 61.24, "decoding": 3.0},
        "attempts": [
            {
                "attempt": 1,
                "started_at": "2026-01-01T00:00:00Z",
                "ended_at": "2026-01-01T00:00:09.500Z",
                "outcome": "delayed",
                "error_code": "worker_lost",
                "error_message": "its worker fell silent",
            },
            {
                "attempt": 2,
                "started_at": "2026-01-01T00:01:00Z",
                "ended_at": None,
                "outcome": None,
                "error_code": None,
                "error_message": None,
            },
        ],
        "preview_frames": [{"step": 10, "of": 40, "url": "https://files.test/10.webp"}],
    }
)

SAID = """\
task                t2v_1  completed
prompt, as sent     a [red] ball
prompt              a [red] ball in the rain, acme style
avoided             blur
written out by      writer, instructions 3
added by lora.acme  acme style
seed                7, drawn for you
recipe              40 steps, guidance 3 and 4, flow shift 12
drawn               832x480, 49 frames, 16 fps
delivered           832x480, 72 frames, 24 fps
model               wan, sha256 0123456789ab
lora                acme, strength 0.8
files made by       t2v_0
seconds             encoding text 61.2, decoding 3.0
run 1               delayed, 9.5 s: worker_lost: its worker fell silent
run 2               under way
"""


def test_a_report_tells_all_that_decided_the_pixels_and_where_the_time_went() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(report(FOUND))

    lines = [line.rstrip() for line in capture.get().splitlines()]
    assert lines == SAID.splitlines()
    assert list(pictures(FOUND)) == ["step 10 of 40  https://files.test/10.webp"]
