"""The benchmarks as they are typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks import memory, startup
from tests.experiments.test_report import row

ROOT = Path(__file__).parents[2]


def run(module, *arguments):
    command = [sys.executable, "-m", f"experiments.benchmarks.{module}", *arguments]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=300)


@pytest.mark.slow
def test_the_gpu_study_can_be_rehearsed():
    finished = run("gpu_study", "--rehearse", "--runs=2", "--dtype=float32", "--skip=naive")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    for variant in ("ncjax w=1 lax", "ncjax w=2 lax", "ncjax w=1 im2col", "ncjax w=2 im2col"):
        assert variant in finished.stdout
    assert "error" not in finished.stdout.lower()


def test_the_gpu_study_refuses_without_a_gpu():
    finished = run("gpu_study")
    assert finished.returncode == 2
    assert finished.stderr.startswith("no GPU")
    assert len(finished.stderr.splitlines()) == 1


def test_the_gpu_study_needs_no_config_library():
    hidden = "import sys; sys.modules |= dict.fromkeys(('ml_collections', 'tensorflow_datasets', 'torch', 'sklearn'))"
    command = [sys.executable, "-c", f"{hidden}; import experiments.benchmarks.gpu_study"]
    subprocess.run(command, cwd=ROOT, check=True)


def test_throughput_draws_its_plot_from_its_rows(tmp_path):
    (tmp_path / "throughput.json").write_text(json.dumps({"rows": [row()]}))
    finished = run("throughput", "--plot_only", f"--output={tmp_path}")
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "throughput.png").stat().st_size > 1000


@pytest.mark.slow
def test_memory_of_a_variant_in_a_process_of_its_own():
    arguments = ["--measure_memory=ncjax w=1", "--case=digits", "--runs=1", "--steps=1", "--runs_per_step=1"]
    found = memory.call_module("experiments.benchmarks.throughput", arguments)
    assert found["peak_bytes"] > found["planned_bytes"] > 1e6


def test_a_child_that_fails_says_why():
    found = memory.call_module("experiments.benchmarks.throughput", ["--measure_memory=nothing", "--case=digits"])
    assert found == {"error": "exit status 1: KeyError: 'nothing'"}


def test_summary_of_starts():
    starts = [startup.Start(seconds, 19, reused) for seconds, reused in ((3.0, 1), (1.0, 1), (2.0, 2))]
    assert startup.summary(starts) == {"seconds": 2.0, "min": 1.0, "max": 3.0, "compiled": 19, "reused": 1}
