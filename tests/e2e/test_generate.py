"""The main job through every door: SDK, command line and raw HTTP, by the model that is shipped."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx2
import numpy as np
import pytest
from PIL import Image

from tests.e2e.stacks import ROLES, Stack
from tests.loras import TINY, make_pair, upload
from tests.waiting import wait_until
from tests.workers import command_line, descendants
from training.vocabulary import COLOURS
from vidmill.client import AsyncVidmill, ClipRequest, TaskCancelled, Vidmill
from vidmill.worker.proc import stat

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("generate")]  # one stack for the module

WAIT_S = 120.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole of Vidmill with the shipped model, for all tests of this module."""
    with Stack(tmp_path_factory.mktemp("generate") / "data", {}) as stack:
        stack.wait_ready()
        yield stack
        assert stack.stop() == 0


@pytest.fixture
def vidmill(stack: Stack) -> Iterator[Vidmill]:
    connection = json.loads((stack.data_dir / "connection.json").read_text())
    with Vidmill(connection["url"], connection["api_key"]) as client:
        yield client


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIDMILL_")}
    return {**kept, "NO_COLOR": "1", "COLUMNS": "160", **more}


def cli(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the real command, which finds the stack by its data folder."""
    return subprocess.run(
        [sys.executable, "-m", "vidmill", *arguments],
        env=environment(VIDMILL_DATA_DIR=str(stack.data_dir)),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


class Clip:
    """What a file really is, by decoding all of it."""

    def __init__(self, path: Path) -> None:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            self.codec = stream.codec_context.name
            self.fps = float(stream.average_rate or 0)
            self.frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        self.height, self.width = self.frames[0].shape[:2]
        self.duration_s = len(self.frames) / self.fps

    def background(self) -> str:
        """Return the colour of the world that the corners are nearest to, over all frames."""
        corner = self.height // 8
        corners = [
            frame[rows, columns].reshape(-1, 3)
            for frame in self.frames
            for rows in (slice(None, corner), slice(-corner, None))
            for columns in (slice(None, corner), slice(-corner, None))
        ]
        seen = np.median(np.concatenate(corners), axis=0)
        return min(COLOURS, key=lambda name: float(np.linalg.norm(seen - COLOURS[name].rgb)))


SMALL: dict[str, Any] = {"size": (832, 480), "fps": 24, "duration_s": 3}


def check(path: Path, *, size: tuple[int, int], fps: float, duration_s: float, on: str) -> Clip:
    clip = Clip(path)
    assert (clip.codec, clip.width, clip.height, clip.fps) == ("h264", *size, fps)
    assert clip.duration_s == pytest.approx(duration_s, abs=0.5 / fps)
    assert clip.background() == on
    return clip


def test_sdk_makes_the_clip_that_was_asked_for(vidmill: Vidmill, tmp_path: Path) -> None:
    progress: list[float] = []
    phases: list[str | None] = []

    def on_progress(task: Any) -> None:
        progress.append(task.progress)
        phases.append(task.phase)

    video = vidmill.generate(
        "a red ball moves right on a blue background",
        duration_s=3,
        resolution="480p",
        seed=7,
        on_progress=on_progress,
        timeout_s=WAIT_S,
    )
    path = video.save(tmp_path / "clip.mp4")
    check(path, **SMALL, on="blue")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == video.sha256
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert "denoising" in phases
    assert (video.result.native_width, video.seed) == (80, 7)


def test_sdk_gives_the_same_frames_for_the_same_seed(vidmill: Vidmill, tmp_path: Path) -> None:
    clip = ClipRequest(prompt="a white star grows", duration_s=3, resolution="480p", seed=3)
    other = clip.model_copy(update={"seed": 4})
    paths = {}
    for outcome in vidmill.generate_many([clip, clip, other]):
        assert outcome.video, outcome.error
        paths[outcome.index] = outcome.video.save(tmp_path / f"{outcome.index}.mp4")
    first, second, third = (np.stack(Clip(paths[index]).frames) for index in range(3))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_async_sdk_cancels_a_clip_while_another_goes_on(stack: Stack, tmp_path: Path) -> None:
    connection = json.loads((stack.data_dir / "connection.json").read_text())

    async def use() -> tuple[Path, str]:
        async with AsyncVidmill(connection["url"], connection["api_key"]) as vidmill:
            keep = await vidmill.submit(
                ClipRequest(
                    prompt="緑の三角形が白い背景で右に動く", duration_s=3, resolution="480p"
                )
            )
            drop = await vidmill.submit(ClipRequest(prompt="a red ball", duration_s=10))
            await vidmill.cancel(drop.task_id)
            with pytest.raises(TaskCancelled):
                await vidmill.wait(drop, timeout_s=WAIT_S)
            video = await vidmill.wait(keep, timeout_s=WAIT_S)
            return await video.save(tmp_path / "clip.mp4"), drop.task_id

    path, dropped = asyncio.run(use())
    check(path, **SMALL, on="white")
    assert stack.status(dropped)["status"] == "cancelled"


def test_command_line_makes_the_clip_and_prints_one_document(stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    prompt = "一个黄色的星星在紫色背景上弹跳"
    done = cli(
        stack,
        *("generate", prompt, "--json", "-o", str(path), "--duration", "3"),
        *("--resolution", "720p", "--frame-rate", "16", "--seed", "5"),
    )
    assert done.returncode == 0, done.stderr
    check(path, size=(1280, 720), fps=16, duration_s=3, on="purple")
    facts = json.loads(done.stdout)
    assert (facts["file"], facts["seed"], facts["width"]) == (str(path), 5, 1280)
    assert facts["task"]["request"]["prompt"] == prompt
    shown = cli(stack, "status", facts["task_id"])
    assert (shown.returncode, shown.stdout.split()[:2]) == (0, [facts["task_id"], "completed"])
    again = tmp_path / "again.mp4"
    assert cli(stack, "result", facts["task_id"], "-o", str(again)).returncode == 0
    assert again.read_bytes() == path.read_bytes()
    assert facts["task_id"] in cli(stack, "list").stdout


def test_command_line_submits_without_waiting_and_cancels(stack: Stack) -> None:
    done = cli(stack, "generate", "a red ball", "--duration", "10", "--no-wait", "--json")
    task_id = json.loads(done.stdout)["task_id"]
    assert cli(stack, "cancel", task_id).returncode == 0
    result = cli(stack, "result", task_id, "--wait")
    assert (result.returncode, result.stdout) == (4, "")


def test_command_line_refuses_what_the_server_refuses_with_exit_2(stack: Stack) -> None:
    done = cli(stack, "generate", "", "--duration", "99", "--json")
    fields = {error["pointer"] for error in json.loads(done.stdout)["error"]["errors"]}
    assert (done.returncode, fields) == (2, {"#/prompt", "#/duration"})
    assert cli(stack, "--api-key", "wrong", "list").returncode == 3


def test_campaign_is_refused_whole_or_made_whole_and_then_kept(
    stack: Stack, tmp_path: Path
) -> None:
    file, folder = tmp_path / "campaign.csv", tmp_path / "out"
    header = "prompt,duration,resolution,name\n"
    file.write_text(f"{header}a blue box falls on a white background,3,480p,box\nx,99,480p,\n")
    refused = cli(stack, "batch", "run", str(file), "-o", str(folder))
    assert refused.returncode == 2
    assert "line 3, duration" in refused.stderr
    assert not folder.exists()

    rows = "a blue box falls on a white background,3,480p,box\n赤いボールが緑の背景で弾む,3,480p,\n"
    file.write_text(header + rows, encoding="utf-8")
    made = cli(stack, "batch", "run", str(file), "-o", str(folder), "--json")
    assert made.returncode == 0, made.stderr
    manifest = json.loads(made.stdout)
    assert manifest == json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert [row["file"] for row in manifest["rows"]] == ["box.mp4", "002-clip.mp4"]
    for row, background in zip(manifest["rows"], ("white", "green"), strict=True):
        path = folder / row["file"]
        check(path, **SMALL, on=background)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        assert (folder / row["poster"]).stat().st_size > 0

    (folder / "box.mp4").unlink()
    again = json.loads(cli(stack, "batch", "run", str(file), "-o", str(folder), "--json").stdout)
    before = [row["task_id"] for row in manifest["rows"]]
    after = [row["task_id"] for row in again["rows"]]
    assert (after[0] == before[0], after[1] == before[1]) == (False, True)


@pytest.mark.parametrize("is_cancelling", [False, True])
def test_interrupted_campaign_leaves_its_tasks_or_cancels_them(
    stack: Stack, tmp_path: Path, *, is_cancelling: bool
) -> None:
    file, folder = tmp_path / "campaign.csv", tmp_path / "out"
    # Other words each time: what the stack has made before, it would answer with at once.
    way = "left" if is_cancelling else "right"
    rows = f"a white star moves {way},3,480p\na red ball moves {way},3,480p\n"
    file.write_text(f"prompt,duration,resolution\n{rows}")
    command = ["batch", "run", str(file), "-o", str(folder)]
    command += ["--cancel-on-interrupt"] if is_cancelling else []
    process = subprocess.Popen(
        [sys.executable, "-m", "vidmill", *command],
        env=environment(VIDMILL_DATA_DIR=str(stack.data_dir)),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr as lines:
        assert wait_until(lambda: "a red ball" in lines.readline(), timeout_s=WAIT_S)
        process.send_signal(signal.SIGINT)
        said = lines.read()
    assert process.wait(WAIT_S) == 130
    manifest = json.loads((folder / "manifest.json").read_text())
    ids = [row["task_id"] for row in manifest["rows"]]
    assert None not in ids
    ends = {stack.wait_over(task_id)["status"] for task_id in ids}
    if is_cancelling:
        assert "cancelled" in ends
        assert "were cancelled" in said
    else:
        assert "Run the same command again" in said
        assert ends == {"completed"}
        again = json.loads(cli(stack, *command, "--json").stdout)
        assert [row["task_id"] for row in again["rows"]] == ids
        assert all((folder / row["file"]).exists() for row in again["rows"])


@pytest.mark.slow
def test_demo_leaves_a_clip_and_a_contact_sheet_and_nothing_running(tmp_path: Path) -> None:
    file, folder = tmp_path / "campaign.csv", tmp_path / "out"
    rows = "白い星が黒い背景で弾む,3,480p\n"
    file.write_text(f"prompt,duration,resolution\n{rows}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "vidmill", "demo", "--file", str(file), "--out", str(folder)],
        # The demo must not touch what the user's own settings name.
        env=environment(VIDMILL_DATABASE_URL="sqlite:////nowhere/x.db", VIDMILL_PORT="1"),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    check(folder / "001-clip.mp4", **SMALL, on="black")
    assert "1 of 1 clips" in done.stdout
    with Image.open(folder / "contact.png") as sheet:
        assert sheet.width > 6 * 200
    url = json.loads((folder / "manifest.json").read_text())["server"]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{url}/livez", timeout=5)


@pytest.mark.slow
def test_demo_that_is_told_to_end_takes_its_stack_along(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "vidmill", "demo", "--out", str(tmp_path / "out")],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def has_a_worker() -> bool:
        return any(ROLES["supervisor"] in command_line(pid) for pid in descendants(process.pid))

    assert wait_until(has_a_worker, timeout_s=WAIT_S)
    stack = descendants(process.pid)
    process.terminate()

    assert process.wait(WAIT_S) == 130
    assert [pid for pid in stack if stat(pid)] == []


def test_raw_http_needs_no_client_of_ours(stack: Stack, tmp_path: Path) -> None:
    body = {"prompt": "橙色的圆形在黑色背景上变大", "duration": 3.5, "resolution": "480p"}
    status, task = stack.call("POST", "/v1/t2v/generate", body)
    assert (status, task["status"]) == (202, "queued")
    deadline = time.monotonic() + WAIT_S
    while stack.status(task["task_id"])["status"] != "completed":
        assert time.monotonic() < deadline, stack.log_tail()
        time.sleep(0.2)
    status, result = stack.call("GET", f"/v1/t2v/result/{task['task_id']}")
    assert status == 200
    path = tmp_path / "clip.mp4"
    with urllib.request.urlopen(result["result_url"], timeout=20) as answer:  # signed: no key
        path.write_bytes(answer.read())
    check(path, size=(832, 480), fps=24, duration_s=3.5, on="black")


def test_doctor_finds_a_running_stack_in_order(stack: Stack) -> None:
    done = cli(stack, "doctor", "--json")
    found = {finding["name"]: finding["state"] for finding in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert found["server"] == found["api key"] == found["clock"] == found["codec"] == "ok"


def test_a_clip_in_a_brand_style_differs_and_the_next_plain_one_does_not(
    stack: Stack, tmp_path: Path
) -> None:
    pair = make_pair(tmp_path, 1, config=TINY)
    connection = json.loads((stack.data_dir / "connection.json").read_text())
    headers = {"Authorization": f"Bearer {connection['api_key']}"}
    with httpx2.Client(base_url=connection["url"], headers=headers, timeout=WAIT_S) as client:
        assert upload(client, pair).status_code == 201
    plain = {"prompt": "a red ball", "duration": 3.0, "resolution": "480p", "seed": 7}
    wanted: list[dict[str, Any]] = [plain, {**plain, "lora": {"name": "acme"}}, plain]
    tasks = [stack.submit(**clip, cache=False) for clip in wanted]
    hashes = []
    for task in tasks:
        stack.wait_over(task)
        hashes.append(stack.call("GET", f"/v1/t2v/result/{task}")[1]["result"]["sha256"])
    assert hashes[0] == hashes[2] != hashes[1]
