"""Peak memory of a variant, measured in a process of its own, and how it grows with the number of runs.

On CPU it is the peak of the resident memory above what it was with everything imported and the images made, so it
includes what compilation takes; on GPU the peak of the allocator. XLA's own plan (arguments, outputs, temporaries)
stands beside it, without compilation.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import jax

from experiments.benchmarks import variants
from experiments.benchmarks.cases import (
    Setting,
    make_inputs,
    setting_recipe,
    setting_split,
    use_precision,
)
from ncjax.training.parallel import make_mesh
from ncjax.training.step import state_shape

ROOT = Path(__file__).parents[2]
MARK = "measured "  # stands before what a child process hands back
CHILD_ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
RUNS = (1, 4, 10)


def in_child(setting: Setting, name: str, conv_form: str, runs_per_step: str) -> dict:
    """{peak_bytes, planned_bytes} of one variant, or {error}."""
    arguments = [f"--measure_memory={name}", f"--case={setting.name}", f"--dtype={setting.dtype}"]
    arguments += [f"--runs={setting.runs}", f"--steps={setting.steps}"]
    arguments += [f"--conv_form={conv_form}", f"--runs_per_step={runs_per_step}"]
    return call_module("experiments.benchmarks.throughput", arguments)


def call_module(module: str, arguments: list[str]):
    """What `python -m module` prints behind MARK, from JSON; {error: its last line} when there is nothing."""
    finished = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | CHILD_ENVIRONMENT,
        check=False,
    )
    for line in reversed(finished.stdout.splitlines()):
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))
    said = (finished.stderr or finished.stdout).strip().splitlines()
    return {"error": f"exit status {finished.returncode}" + (f": {said[-1]}" if said else "")}


def hand_back(found) -> None:
    """The other end of `call_module`."""
    print(MARK + json.dumps(found), flush=True)


def measure(setting: Setting, name: str, conv_forms: list[str], runs_per_step: list[str]) -> dict:
    """{peak_bytes, planned_bytes}: builds one variant in this process and calls it twice."""
    use_precision(setting.dtype)
    build = variants.make_builders(setting, conv_forms, runs_per_step)[name]  # imports torch, starts jax
    setting_split(setting), make_inputs(setting.case.model, setting.runs)
    before = resident_peak()
    variant = build()
    for _ in range(2):
        variant.epoch()
    return {"peak_bytes": _peak(name, before), "planned_bytes": variant.planned_bytes}


def _peak(name: str, before: int) -> int:
    if jax.default_backend() == "cpu":
        return resident_peak() - before
    if name == variants.TORCH:
        import torch

        return torch.cuda.max_memory_allocated()
    return sum(device.memory_stats()["peak_bytes_in_use"] for device in jax.local_devices())


def resident_peak() -> int:
    """Bytes, of this process alone: on Linux the ru_maxrss of a child starts at the peak of its parent."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def state_bytes(setting: Setting) -> int:
    """Of one run: parameters, momentum, batch statistics."""
    state = state_shape(setting_recipe(setting, "auto"), setting.case.image_shape)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def print_memory_of_runs(settings: list[Setting]) -> None:
    """Peak memory of ncjax w=1 for several numbers of runs, against the state of the runs."""
    print(f"{'case':12} {'R':>3} {'devices':>7} {'peak MiB':>9} {'XLA plan MiB':>12} {'state of R runs MiB':>20}")
    for setting in settings:
        found = in_child(setting, variants.ncjax_name(1), "auto", "1")
        if "error" in found:
            print(f"{setting.name:12} {setting.runs:3} {found['error']}")
            continue
        devices = make_mesh(setting.runs).size
        sizes = found["peak_bytes"], found["planned_bytes"] or 0, setting.runs * state_bytes(setting)
        peak, plan, state = (size / 2**20 for size in sizes)
        print(f"{setting.name:12} {setting.runs:3} {devices:7} {peak:9.1f} {plan:12.1f} {state:20.1f}", flush=True)
    for name, size in {setting.name: state_bytes(setting) for setting in settings}.items():
        print(f"{name}: the state of one run takes {size:,} bytes")
    print("one run at a time on each device: beyond the state of the runs memory grows with the devices at work only")
