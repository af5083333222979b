"""Seconds from a command to its first result: `--help`, and the first epoch with an empty and a warm compilation cache.

    python -m experiments.benchmarks.startup

Medians of 5. The job is configs/digits.py with one epoch; its first epoch ends with the first line about an epoch,
which includes one evaluation. Each repeat has an empty cache folder for its cold start and uses it again for its
warm one; with them the numbers of programs compiled and reused in the whole job.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from experiments.benchmarks.timing import RESULTS, write_results

ROOT = Path(__file__).parents[2]
COUNTED_JOB = """
import collections
import jax
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event.rsplit("/", 1)[-1]]))
from ncjax import command, main
try:
    command.run(main.main)
except SystemExit as end:
    if end.code:
        raise
print("compiled", counts["cache_misses"], "reused", counts["cache_hits"])
"""


class Start(NamedTuple):
    """One start of the job."""

    first_epoch_seconds: float
    compiled: int
    reused: int


def help_seconds() -> float:
    """Wall time of `python -m ncjax.main --help`."""
    command = [sys.executable, "-m", "ncjax.main", "--help"]
    started = time.perf_counter()
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    taken = time.perf_counter() - started
    if "--config" not in finished.stdout:  # the status says nothing: absl ends --help with 1
        raise SystemExit(f"--help gave no help: {finished.stderr.strip()}")
    return taken


def start_job(workdir: Path, cache: Path, changes: list[str]) -> Start:
    """Train one epoch in a new process and note when it is there."""
    arguments = [f"--config={ROOT / 'configs' / 'digits.py'}", f"--workdir={workdir}", "--config.epochs=1", *changes]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "PYTHONUNBUFFERED": "1"}
    command, reached, line = [sys.executable, "-c", COUNTED_JOB, *arguments], None, ""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        for line in process.stdout:
            if reached is None and line.startswith("epoch") and "1/1" in line:
                reached = time.perf_counter() - started
    if process.returncode or reached is None:
        raise SystemExit(f"the job ended with status {process.returncode}; its last line was: {line.strip()}")
    _, compiled, _, reused = line.split()
    return Start(reached, int(compiled), int(reused))


def cold_and_warm(changes: list[str]) -> tuple[Start, Start]:
    """Two starts in a row, the first with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        cold, warm = (start_job(folder / name, folder / "cache", changes) for name in ("cold", "warm"))
    return cold, warm


def summary(starts: list[Start]) -> dict:
    """Medians, with the extremes of the seconds."""
    times = [start.first_epoch_seconds for start in starts]
    compiled, reused = (int(median(getattr(start, name) for start in starts)) for name in ("compiled", "reused"))
    return {"seconds": median(times), "min": min(times), "max": max(times), "compiled": compiled, "reused": reused}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of startup.json")
    options, changes = parser.parse_known_args()  # others, --config.key=value, go to the job
    helps = [help_seconds() for _ in range(options.repeats)]
    colds, warms = zip(*(cold_and_warm(changes) for _ in range(options.repeats)), strict=True)
    rows = {
        "--help": {"seconds": median(helps), "min": min(helps), "max": max(helps)},
        "first epoch, empty cache": summary(colds),
        "first epoch, warm cache": summary(warms),
    }
    print(f"{'':26} {'seconds':>8} {'min':>7} {'max':>7} {'compiled':>9} {'reused':>7}")
    for name, row in rows.items():
        counts = f"{row['compiled']:9} {row['reused']:7}" if "compiled" in row else ""
        print(f"{name:26} {row['seconds']:8.2f} {row['min']:7.2f} {row['max']:7.2f} {counts}".rstrip())
    write_results("startup", options.output, repeats=options.repeats, rows=rows)


if __name__ == "__main__":
    main()
