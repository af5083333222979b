"""How training throughput on a GPU depends on the number of runs, the dtype, chunks of runs and convolution forms.

    pip install -e '.[bench,cuda]'
    python -m experiments.benchmarks.gpu_study

ResNet-32 on 32x32x3, batches of 128, R = 1 to 40, float32 and bfloat16: PyTorch (channels_last, compiled, bf16
autocast) training one model after another, naive `jit(vmap(step))`, and ncjax with 1, half or all runs at a time
(all: `vmap`) and convolutions as `lax` (grouped under vmap) or `im2col` (a batched matmul under vmap). Every (R,
dtype) is a process of its own; a variant that fails, as for want of memory, is a row with its error. Rows are added
to experiments/results/gpu_study.json as they come, so the study can be made in parts (`--runs=40 --dtype=bfloat16`);
gpu_study.png shows the cost of a step per run. `--rehearse` runs the same code in a tiny size on CPU.

NCHW is no variant: the networks are written for NHWC, and on GPU XLA chooses the layout of every convolution itself;
transposing around each one would measure the transposes. An honest comparison needs a second set of networks.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import jax

from experiments.benchmarks import report, variants
from experiments.benchmarks.cases import CASES, DTYPES, Case, Setting
from experiments.benchmarks.comparison import compare
from experiments.benchmarks.memory import call_module, hand_back
from experiments.benchmarks.throughput import start_devices
from experiments.benchmarks.timing import RESULTS, device_kind, read_rows, write_rows

RUNS, REHEARSED_RUNS = [1, 4, 10, 20, 40], [1, 2]
REHEARSAL = Case("resnet8", (8, 8, 1), 16, 2, steps=2)
CONV_FORMS, RUNS_PER_STEP = ["lax", "im2col"], ["1", "some", "all"]


def parse() -> argparse.Namespace:
    """The options of the command line, defaults filled in."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, action="append", help=f"numbers of runs; default: {RUNS}")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="default: float32 and bfloat16")
    parser.add_argument("--skip", choices=("torch", "naive"), action="append", default=[], help="leave out")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rehearse", action="store_true", help="tiny, on CPU; writes to a temporary folder")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.runs = options.runs or (REHEARSED_RUNS if options.rehearse else RUNS)
    options.dtype = options.dtype or ["float32", "bfloat16"]
    return options


def setting_of(runs: int, dtype: str, rehearse: bool) -> Setting:
    """One (R, dtype) of the study."""
    name, case = ("rehearsal", REHEARSAL) if rehearse else ("resnet32", CASES["resnet32"])
    return Setting(name, case, runs, dtype, case.steps)


def measure(options: argparse.Namespace) -> list[dict]:
    """Rows of one setting, in this process; PyTorch's network is checked with the first numbers of runs only."""
    setting = setting_of(options.runs[0], options.dtype[0], options.rehearse)
    checked = setting.runs == RUNS[0] and setting.dtype == "float32"
    repeats = 1 if options.rehearse else options.repeats
    return compare(setting, CONV_FORMS, RUNS_PER_STEP, tuple(options.skip), repeats, checked)


def in_child(runs: int, dtype: str, options: argparse.Namespace) -> list[dict]:
    """Rows of one setting from a process of its own; one row with the error when the whole process failed."""
    arguments = ["--child", f"--runs={runs}", f"--dtype={dtype}", f"--repeats={options.repeats}"]
    arguments += [f"--skip={name}" for name in options.skip] + ["--rehearse"] * options.rehearse
    found = call_module("experiments.benchmarks.gpu_study", arguments)
    if isinstance(found, list):
        return found
    setting = setting_of(runs, dtype, options.rehearse)
    row = {"device_kind": device_kind(), "case": setting.name, "dtype": dtype, "runs": runs, "variant": "all"}
    return [row | {"batch_size": setting.case.batch_size, "error": found["error"]}]


def study(options: argparse.Namespace, folder: Path) -> list[dict]:
    """All rows measured, written as they come, with table and plot."""
    if not variants.torch_device():
        print("PyTorch is not installed, or not for this device: its variant is left out")
    rows = []
    for dtype in options.dtype:
        for runs in options.runs:
            found = in_child(runs, dtype, options)
            print(report.table(found), end="\n\n", flush=True)
            write_rows(folder / "gpu_study.json", found)
            rows += found
    report.plot_cost_per_run(read_rows(folder / "gpu_study.json"), folder / "gpu_study.png")
    return rows


def main() -> None:
    options = parse()
    start_devices()
    if options.rehearse:  # on one device, as on one GPU
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", 1)
    if not options.rehearse and jax.default_backend() != "gpu":
        print("no GPU: jax finds none here; --rehearse runs the study in a tiny size on CPU", file=sys.stderr)
        sys.exit(2)
    if options.child:
        hand_back(measure(options))
        return
    if not options.rehearse:
        study(options, RESULTS)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = study(options, Path(folder))
    if any("error" in row for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
