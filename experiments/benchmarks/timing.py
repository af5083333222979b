"""What the benchmarks share: interleaved timing, and results with the command and machine that made them."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import jax

RESULTS = Path(__file__).parents[1] / "results"
IDENTITY = ("device_kind", "case", "dtype", "runs", "variant")  # a row measured again replaces the one equal in these


def interleaved(calls: dict[str, Callable], repeats: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    """(seconds of the first call of each, which compiles; of every later one): the machine's mood is shared by all."""
    first = {name: seconds(call) for name, call in calls.items()}
    return first, repeated(calls, repeats)


def repeated(calls: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    """Seconds of every call, one round of all after another."""
    found = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            found[name].append(seconds(call))
    return found


def seconds(call: Callable) -> float:
    """Of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def write_results(name: str, folder: Path = RESULTS, **content) -> Path:
    """<folder>/<name>.json, with the command line and the machine."""
    return _write(folder / f"{name}.json", {"command": command(), "machine": machine(), **content})


def write_rows(path: Path, rows: list[dict]) -> list[dict]:
    """Add rows, each with command and machine, to a file of rows; returns all rows of the file."""
    made_by = {"command": command(), "machine": machine()}
    merged = merge_rows(read_rows(path), [row | made_by for row in rows])
    _write(path, {"rows": merged})
    return merged


def read_rows(path: Path) -> list[dict]:
    """The rows of a file that say what they measured; none where there is no file."""
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    return [row for row in rows if all(key in row for key in IDENTITY)]


def merge_rows(older: list[dict], newer: list[dict]) -> list[dict]:
    """All rows; a newer one takes the place of an older one of equal identity."""
    merged = {tuple(row[key] for key in IDENTITY): row for row in [*older, *newer]}
    return list(merged.values())


def command() -> str:
    """As typed."""
    return " ".join(["python -m", f"experiments.benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]])


def machine() -> dict:
    """Cores, processor, accelerator, versions."""
    return {
        "cores": allowed_cores(),
        "cpu": cpu_model(),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
        "torch": torch_version(),
    }


def device_kind() -> str:
    """What computes: the accelerator, or the processor's model."""
    return cpu_model() if jax.default_backend() == "cpu" else jax.devices()[0].device_kind


def cpu_model() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def allowed_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def torch_version() -> str | None:
    """Without importing it; None where it is not installed."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def _write(path: Path, content: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
