"""Several workdirs side by side: one row per cell and family, with the settings in which the cells differ."""

from pathlib import Path

from ncjax.analysis.families import family_table
from ncjax.analysis.runset import RunSet, load
from ncjax.config import PLACEMENT, flatten
from ncjax.errors import InputError


def compare(workdirs: list) -> list[dict]:
    """The family table of every workdir, `cell` and the differing settings in front.

    Cells are named by the last part of their path, by the whole path where two would be the same.

    Raises:
      InputError: for fewer than two workdirs, or one that holds no evaluation.
    """
    if len(workdirs) < 2:
        raise InputError("a comparison needs at least two workdirs")
    cells = {name: load(path) for name, path in zip(cell_names(workdirs), workdirs, strict=True)}
    settings = {name: flatten(runs.config) for name, runs in cells.items()}
    varied = differing_keys(list(settings.values()))
    return [
        {"cell": name, **{key: settings[name].get(key) for key in varied}, **row}
        for name, runs in cells.items()
        for row in family_table(_evaluated(runs))
    ]


def cell_names(workdirs: list) -> list[str]:
    """Short names, all different."""
    short = [Path(workdir).name for workdir in workdirs]
    return short if len(set(short)) == len(short) else [str(workdir) for workdir in workdirs]


def differing_keys(settings: list[dict]) -> list[str]:
    """Keys of flat settings that are not the same everywhere, placement apart."""
    keys = dict.fromkeys(key for one in settings for key in one)
    missing = object()
    return [key for key in keys if key not in PLACEMENT and len({repr(one.get(key, missing)) for one in settings}) > 1]


def _evaluated(runs: RunSet) -> RunSet:
    if not runs.metrics:
        raise InputError(f"{runs.workdir} holds no evaluation yet: train it first")
    return runs
