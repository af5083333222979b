"""Small files of a workdir: JSON, tidy metric rows, arrays. Every write is whole or absent."""

import csv
import io
import json
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ncjax.errors import InputError

COLUMNS = ("step", "epoch", "run", "split", "metric", "value")
METRICS = "metrics.csv"


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader or a crash sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, content) -> None:
    """Write JSON, indented, readable by people."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path):
    """Read JSON.

    Raises:
      InputError: when the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} is missing: is {path.parent} the workdir of a run?") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}): restore it or use a new workdir") from None


def append_rows(workdir: Path, rows: list[dict]) -> None:
    """Add metric rows (dicts with the keys of `COLUMNS`) at the end of metrics.csv; floats keep every bit."""
    path = workdir / METRICS
    text = _csv_text(rows, header=not path.exists())
    with path.open("a", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_rows(workdir: Path) -> list[dict]:
    """All metric rows, in file order; a last line cut short by a crash is left out.

    Raises:
      InputError: when a line in the middle is damaged.
    """
    path = workdir / METRICS
    if not path.exists():
        return []
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    return [_parse(path, number, fields) for number, fields in enumerate(csv.reader(lines), 1) if number > 1]


def keep_rows_until(workdir: Path, step: int) -> None:
    """Drop the rows and arrays of steps after `step`, so that a resumed job writes each of them once."""
    rows = [row for row in read_rows(workdir) if row["step"] <= step]
    write_bytes(workdir / METRICS, _csv_text(rows, header=True).encode())
    for path in (workdir / "arrays").glob("*.npz"):
        if int(path.stem) > step:
            path.unlink()


def write_table(path: Path, rows: list[dict]) -> None:
    """Store rows of equal keys as CSV with a header."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, buffer.getvalue().encode())


def write_array(path: Path, array: np.ndarray) -> None:
    """Store one array as .npy."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def read_array(path: Path) -> np.ndarray:
    """One array stored as .npy.

    Raises:
      InputError: when it is missing or damaged.
    """
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read ({error}): restore it or use a new workdir") from None


def write_arrays(path: Path, arrays: dict) -> None:
    """Store named arrays as .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Named arrays stored as .npz.

    Raises:
      InputError: when they are missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}): restore it or use a new workdir") from None


def arrays_path(folder: Path, step: int) -> Path:
    """Where the arrays of one evaluation are."""
    return folder / "arrays" / f"{step:08d}.npz"


def _csv_text(rows: list[dict], header: bool) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows({**row, "value": repr(float(row["value"]))} for row in rows)
    return buffer.getvalue()


def _parse(path: Path, number: int, fields: list[str]) -> dict:
    try:
        step, epoch, run, split, metric, value = fields
        return dict(zip(COLUMNS, (int(step), int(epoch), int(run), split, metric, float(value)), strict=True))
    except ValueError:
        raise InputError(
            f"{path} line {number} is damaged: delete the file and python -m ncjax.analyze recomputes the metrics"
        ) from None
