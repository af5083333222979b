"""Training throughput of many runs: ncjax against what a user would do without it.

    pip install -e '.[bench]'
    python -m experiments.benchmarks.throughput [--case=digits] [--dtype=bfloat16] [--runs=1 --runs=10]
    python -m experiments.benchmarks.throughput --memory_of_runs --case=digits
    python -m experiments.benchmarks.throughput --plot_only

All variants (variants.py) train on the same images in interleaved repeats; the unit is run-images per second (runs x
batch x steps / time), forward + backward + SGD, compilation excluded. Medians; ratios within a repeat are what
matters. Before anything is timed, PyTorch's network and ncjax's must train alike (parity.py). `of limit` is the share
of what the hardware allows (limits.py); `peak` is the memory of a variant in a process of its own (memory.py).
Rows are added to experiments/results/throughput.json, and throughput.png is drawn from all of them.
"""

import argparse
import os
import sys
from pathlib import Path

import jax

from experiments.benchmarks import memory, report, variants
from experiments.benchmarks.cases import CASES, DTYPES, Setting, make_setting
from experiments.benchmarks.comparison import compare
from experiments.benchmarks.timing import RESULTS, read_rows, write_rows
from ncjax.models.conv import FORMS
from ncjax.training import parallel


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line, defaults filled in."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="default: float32; tf32 on GPU only")
    parser.add_argument("--runs", type=int, action="append", help="numbers of runs; default: the case's")
    parser.add_argument("--conv_form", choices=FORMS, action="append", help="default: auto")
    parser.add_argument("--runs_per_step", action="append", help="1, some, all or a number; default: 1, some and all")
    parser.add_argument("--skip", choices=("torch", "naive"), action="append", default=[], help="leave out")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="of one timed call; default: the case's")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of throughput.json and throughput.png")
    parser.add_argument("--no_memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--memory_of_runs", action="store_true", help="only print peak memory for 1, 4 and 10 runs")
    parser.add_argument("--plot_only", action="store_true", help="only draw the plot from the rows already there")
    parser.add_argument("--measure_memory", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.case = options.case or list(CASES)
    options.dtype = options.dtype or ["float32"]
    options.conv_form = options.conv_form or ["auto"]
    options.runs_per_step = options.runs_per_step or ["1", "some", "all"]
    wrong = [size for size in options.runs_per_step if size not in ("some", "all") and not size.isdecimal()]
    if wrong or "0" in options.runs_per_step:
        parser.error("--runs_per_step is 1, some, all or a number of runs")
    return options


def settings(options: argparse.Namespace) -> list[Setting]:
    """Every combination of case, dtype and number of runs."""
    combined = [(name, runs, dtype) for name in options.case for dtype in options.dtype for runs in options.runs or [0]]
    return [make_setting(name, runs, dtype, options.steps) for name, runs, dtype in combined]


def rows_of(setting: Setting, options: argparse.Namespace) -> list[dict]:
    """Rates of all variants, then the memory of each."""
    rows = compare(setting, options.conv_form, options.runs_per_step, tuple(options.skip), options.repeats)
    if not options.no_memory:
        for row in rows:
            size, form = row.get("runs_per_step", 1), row.get("conv_form", "auto")
            row["peak_bytes"] = memory.in_child(setting, row["variant"], form, str(size)).get("peak_bytes")
    return rows


def start_devices() -> None:
    """All cores; on GPU jax leaves memory to PyTorch. Before jax is first used."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.85")
    parallel.use_all_cores()


def refuse_tf32_off_gpu(dtypes: list[str]) -> None:
    """tf32 would be a second name of float32 elsewhere."""
    if "tf32" in dtypes and jax.default_backend() != "gpu":
        print("--dtype=tf32 needs a GPU", file=sys.stderr)
        sys.exit(2)


def measure_all(options: argparse.Namespace) -> list[dict]:
    """Rows of every setting, each printed and written as soon as it is there."""
    if "torch" not in options.skip and not variants.torch_device():
        print("PyTorch is not installed, or not for this device: its variant is left out")
    rows = []
    for setting in settings(options):
        found = rows_of(setting, options)
        print(report.table(found), end="\n\n", flush=True)
        write_rows(options.output / "throughput.json", found)
        rows += found
    return rows


def main() -> None:
    options = parse()
    start_devices()
    if options.plot_only:
        report.plot_ratios(read_rows(options.output / "throughput.json"), options.output / "throughput.png")
        return
    refuse_tf32_off_gpu(options.dtype)
    if options.measure_memory:
        (setting,) = settings(options)
        memory.hand_back(memory.measure(setting, options.measure_memory, options.conv_form, options.runs_per_step))
        return
    if options.memory_of_runs:
        options.runs = options.runs or list(memory.RUNS)
        memory.print_memory_of_runs(settings(options))
        return
    rows = measure_all(options)
    report.plot_ratios(read_rows(options.output / "throughput.json"), options.output / "throughput.png")
    if any("error" in row for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
