"""Two workers are one training: alike at any moment, the same each time, unbroken by kill -9."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessExitedException

from tests.waiting import wait_until
from training.loop import Learner, linear, train
from training.workers import rank, run_together

NUM_STEPS = 6
WHOLE_0, WHOLE_1, KILLED_0 = ("whole", 0), ("whole", 1), ("killed", 0)


def train_a_line(folder: Path, name: str, dies_before: int | None) -> None:
    """Teach a layer to halve noise, as a stage does; both workers leave what they learnt."""
    network = nn.Linear(4, 4)
    learner = Learner(
        network=network,
        average=nn.Linear(4, 4),
        optimizers=[torch.optim.AdamW(network.parameters())],
        schedule=linear(0.1, warmup_steps=2, hold=0.5, end=0.1),
        seed="line",
    )

    def step_loss(_progress: float) -> Tensor:
        if learner.num_steps == dies_before and rank() == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        samples = torch.randn(8, 4, generator=learner.noise)
        loss: Tensor = ((network(samples) - samples / 2) ** 2).mean()
        return loss

    train(learner, step_loss, folder / f"{name}.pt", num_steps=NUM_STEPS, save_every_s=0)
    drawn = torch.randn(1, generator=learner.noise)
    torch.save({**network.state_dict(), "drawn": drawn}, folder / f"{name}-{rank()}.pt")


def learnt(folder: Path, name: str, worker: int) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(folder / f"{name}-{worker}.pt", weights_only=True)
    return weights


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in ("weight", "bias"))


def test_workers_stay_alike_and_a_killed_group_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    run_together(train_a_line, tmp_path, "whole", None)
    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        run_together(train_a_line, tmp_path, "killed", 3)
    run_together(train_a_line, tmp_path, "killed", None)
    one, other, resumed = (learnt(tmp_path, *of) for of in (WHOLE_0, WHOLE_1, KILLED_0))
    assert same(one, other)
    assert one["drawn"] != other["drawn"]
    assert same(one, resumed)
    assert one["drawn"] == resumed["drawn"]


def wait_long(folder: Path) -> None:
    (folder / "partial").write_text(str(os.getpid()))
    (folder / "partial").rename(folder / "pid")
    time.sleep(60)


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_workers_die_with_a_training_that_is_killed_in_the_background(tmp_path: Path) -> None:
    code = (
        "import signal, sys; from pathlib import Path; from training.workers import run_apart\n"
        "from tests.training.test_workers import wait_long\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does behind &\n"
        "    run_apart((wait_long, (Path(sys.argv[1]),)))\n"
    )
    root = Path(__file__).parents[2]
    (tmp_path / "train.py").write_text(code)
    paths = os.pathsep.join([str(root), str(root / "src")])
    with subprocess.Popen(
        [sys.executable, "train.py", "."], cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}
    ) as training:
        assert wait_until((tmp_path / "pid").exists, timeout_s=60)
        training.kill()
    worker = int((tmp_path / "pid").read_text())
    assert wait_until(lambda: not is_alive(worker), timeout_s=10)
