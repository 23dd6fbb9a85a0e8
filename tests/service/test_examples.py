"""Every example of the SDK runs, as a user runs it: a program with a server in its environment."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.desks import KEY
from tests.servers import CONTENTS, Server, deliver, fail, working
from vidmill.client import Vidmill

pytestmark = pytest.mark.sqlite
"""What is tried here is a client; `tests/service/store` and others try both databases."""

EXAMPLES = Path(__file__).parents[2] / "examples"
TESTED_ELSEWHERE = {"webhook_receiver.py"}  # tests/unit/outbound/test_receivers.py


def run(server: Server, name: str, *arguments: str | Path) -> list[str]:
    """Run an example to its end and return the lines it printed."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        env={**os.environ, "VIDMILL_URL": server.url, "VIDMILL_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_example_is_tested() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    names = {path.name for path in EXAMPLES.glob("*.py")} - TESTED_ELSEWHERE
    assert [name for name in sorted(names) if f'"{name}"' not in here] == []


def test_one_clip_is_saved(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "ball.mp4"
    with working(server.bench, deliver):
        said = run(server, "one_clip.py", "a red ball", path)
    assert path.read_bytes() == CONTENTS["video"]
    assert said[0].startswith("costs ")
    assert said[-2].startswith("completed")


def test_a_lora_pair_of_noise_is_one_that_the_tiny_model_takes(
    server: Server, tmp_path: Path
) -> None:
    high, low = run(server, "lora_pair.py", tmp_path / "acme")
    with Vidmill(server.url, KEY) as vidmill:
        made = vidmill.loras.add("acme", high, low, licence="own work")
    assert (made.rank, made.layers) == (4, 60)


def test_text_becomes_a_link(server: Server) -> None:
    with working(server.bench, deliver):
        assert run(server, "text_to_link.py", "a red ball")[0].startswith("http://files.test/")


def test_events_are_followed_and_not_repeated(server: Server) -> None:
    task_id = server.bench.generate()["task_id"]
    with working(server.bench, fail):
        said = run(server, "follow_events.py", task_id)
    assert said[-1].split()[1] == "t2v.task.failed"
    assert run(server, "follow_events.py", task_id, said[-1].split()[0]) == []


def test_many_clips_are_made_and_a_failure_stops_none(server: Server, tmp_path: Path) -> None:
    with working(server.bench, fail, deliver):
        said = run(server, "many_clips.py", tmp_path / "out", "a red ball", "a blue star")
    assert sorted(line.split()[0] for line in said) == ["failed", "saved"]
    assert (tmp_path / "out" / "1.mp4").read_bytes() == CONTENTS["video"]


def test_a_batch_is_checked_made_and_saved(server: Server, tmp_path: Path) -> None:
    rows, target = tmp_path / "rows.csv", tmp_path / "clips.zip"
    rows.write_text("custom_id,prompt\n1,a red ball\n2,\n3,a star\n", encoding="utf-8")
    with working(server.bench, deliver, deliver):
        said = run(server, "batch.py", rows, target)
    assert said[0].startswith("line 3: ")
    assert said[1].startswith("2 rows, ")
    assert zipfile.is_zipfile(target)
