"""A run over a Ray cluster, of which nodes die, ends with the files of one process."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from affinitynet.cli import main
from affinitynet.command_line import over_ray
from affinitynet.pipeline import Run
from affinitynet.run_folder.compare import compare_runs

Begin = Callable[[Run, Path, str], None]

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# In every process: shards of two images, as the toy set has twelve, and time to kill someone.
SLOW = """
import time
from affinitynet.engine import shards
from affinitynet.run_folder import records
records.SHARD_IMAGES = 2
settle = shards.Claims.settle
def settle_late(self, item):
    time.sleep(0.2)
    settle(self, item)
shards.Claims.settle = settle_late
"""

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


class Nodes(NamedTuple):
    """A cluster, and the environment of commands that use it."""

    cluster: Any
    environment: dict[str, str]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "sitecustomize.py").write_text(SLOW, encoding="utf-8")
    paths = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0"}
    spec = spec_from_file_location("ray_nodes", BENCHMARKS / "ray_nodes.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    cluster = module.Nodes(2, environment)
    yield Nodes(cluster, {**environment, "RAY_ADDRESS": cluster.address})
    cluster.end()


def start(nodes: Nodes, whole: Run, out: Path, *words: str) -> "subprocess.Popen[bytes]":
    recipe = whole.recipe.out.parent / "tiny.yaml"
    command = [sys.executable, "-m", "affinitynet", "run", str(recipe), "--out", str(out)]
    command += ["--data", str(whole.recipe.data), "--anyway", "--verbose", "--engine", "ray"]
    with log_of(out).open("a") as error:
        return subprocess.Popen([*command, *words], stderr=error, env=nodes.environment)


def log_of(out: Path) -> Path:
    return out.with_suffix(".log")


def wait_until(there: Callable[[], bool], process: "subprocess.Popen[bytes]", out: Path) -> None:
    deadline = time.monotonic() + 600
    while not there() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert there(), log_of(out).read_text()


def node_of(out: Path) -> str:
    """The node of the last process that said where it is."""
    lines = log_of(out).read_text().splitlines()
    return next(line for line in reversed(lines) if " is on node " in line).split(" is on node ")[1]


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("without", "until", "deaths"),
    [
        ("train_classifier", "train_classifier", ("classifier/checkpoint.pt",)),
        ("compute_cams", "compute_cams", ("cams/*.npz",)),
        ("mine_confident", "mine_confident", ("confident/*.png",)),
        ("train_segmenter", "evaluate", ("segmenter/checkpoint.pt", "predictions/*.png")),
        ("propagate", "propagate", ("pseudo/*.png",)),
        ("evaluate", "evaluate", ("evaluation/counts/*.npz",)),
    ],
)
def test_nodes_that_die_and_nodes_that_join_change_no_byte(
    nodes: Nodes,
    whole: Run,
    begin: Begin,
    tmp_path: Path,
    without: str,
    until: str,
    deaths: tuple[str, ...],
) -> None:
    """In each kind of stage a node is killed that works on it, and another comes."""
    out = tmp_path / "run"
    begin(whole, out, without)
    process = start(nodes, whole, out, "--until", until)
    for pattern in deaths:
        wait_until(lambda: any(out.glob(pattern)), process, out)  # noqa: B023
        nodes.cluster.replace(node_of(out))
    assert process.wait(timeout=900) == 0, log_of(out).read_text()
    assert "has died; another takes its part" in log_of(out).read_text()
    stages = whole.stages[: [stage.name for stage in whole.stages].index(until) + 1]
    rows = compare_runs(whole.recipe.out, out, stages)
    assert [row.differ for row in rows] == [()] * len(stages)
    assert all(row.files for row in rows)
    assert not (out / ".engine").exists()


@needs_ray
@pytest.mark.slow
def test_linked_processes_lose_one_and_begin_again(
    nodes: Nodes, whole: Run, tmp_path: Path
) -> None:
    found = []
    for name in ("still", "killed"):
        out = tmp_path / name
        process = start(nodes, whole, out, "--ranks", "2", "--until", "train_classifier")
        if name == "killed":
            wait_until(lambda: (out / "classifier" / "checkpoint.pt").is_file(), process, out)  # noqa: B023
            nodes.cluster.replace(node_of(out))
        assert process.wait(timeout=900) == 0, log_of(out).read_text()
        found.append((out / "classifier" / "weights.safetensors").read_bytes())
    assert found[0] == found[1]


@needs_ray
@pytest.mark.slow
def test_a_mistake_and_sigterm_come_back_to_the_command(
    nodes: Nodes, whole: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(nodes, whole, out, "--ranks", "2", "--classifier.batch_size", "1")
    assert process.wait(timeout=300) == 2
    assert "a batch of 1 images can't be cut among 2 processes" in log_of(out).read_text()
    out = tmp_path / "again"
    process = start(nodes, whole, out)
    wait_until(lambda: (out / "classifier" / "checkpoint.pt").is_file(), process, out)
    process.terminate()
    assert process.wait(timeout=300) == 75
    assert "stopped by SIGTERM, all is saved" in log_of(out).read_text()


def test_what_the_ray_engine_refuses_is_said_at_once(
    whole: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = str(whole.recipe.out.parent / "tiny.yaml")
    words = ["run", recipe, "--data", str(whole.recipe.data), "--engine", "ray", "--out"]
    with pytest.raises(SystemExit, match="2"):
        main([*words, str(whole.recipe.out), "--redo", "propagate"])
    assert "several workers make nothing anew" in capsys.readouterr().err
    monkeypatch.setattr(over_ray, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        main([*words, str(whole.recipe.out)])
    assert "pip install 'affinitynet[ray]'" in capsys.readouterr().err
