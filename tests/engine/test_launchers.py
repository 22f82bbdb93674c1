"""`torchrun` and `accelerate launch` start a run of two processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from affinitynet.run_folder.origin import read_origin

TORCHRUN = ("torch.distributed.run", "--nproc-per-node", "2", "--master-port")
ACCELERATE = (
    *("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port"),
)


@pytest.mark.slow
def test_launchers_start_two_processes_that_train_together(
    toy: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    made = []
    for launcher in (TORCHRUN, ACCELERATE):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        out = tmp_path / launcher[0]
        run = ["run", str(tiny_recipe), "--data", str(toy), "--out", str(out), "--anyway"]
        done = subprocess.run(
            [
                *(sys.executable, "-m", *launcher, port, "-m", "affinitynet", *run),
                *("--until", "compute_cams"),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
            timeout=1200,
        )
        assert done.returncode == 0, done.stderr
        assert read_origin(out)["processes"] == 2
        made.append((out / "classifier" / "weights.safetensors").read_bytes())
        assert len(list((out / "cams").glob("*.npz"))) == 12
    assert made[0] == made[1]
