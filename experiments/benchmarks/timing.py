"""What the benchmarks share: interleaved timing, and results with the command and machine that made them."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax

RESULTS = Path(__file__).parents[1] / "results"


def interleaved(calls: dict[str, Callable], repeats: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    """(seconds of the first call of each, which compiles; of every later one): the machine's mood is shared by all."""
    first = {name: _seconds(call) for name, call in calls.items()}
    later = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            later[name].append(_seconds(call))
    return first, later


def write_results(name: str, **content) -> None:
    """experiments/results/<name>.json, with the command line and the machine."""
    module = Path(sys.argv[0]).stem
    command = " ".join(["python -m", f"experiments.benchmarks.{module}", *sys.argv[1:]])
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "jax": jax.__version__}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"command": command, "machine": machine, **content}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def _seconds(call: Callable) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
