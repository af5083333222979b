"""The notebook door: everything a workdir holds about its runs.

runs = ncjax.load("out/digits")
runs.values("accuracy", "test")          # (R,) at the last evaluation
epochs, p_min = runs.curve("p_min")      # (E,), (R, E)
features = runs.features(runs.steps[-1], "test", run=3)
"""

from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from ncjax.config import placed_automatically, validate
from ncjax.errors import InputError
from ncjax.store import records
from ncjax.store.checkpoint import Checkpoints
from ncjax.training import parallel
from ncjax.training.evaluate import split_features
from ncjax.training.job import Job, empty_states, make_job, splits_of
from ncjax.training.measure import arrays_of, measure_runs
from ncjax.training.memory import fit
from ncjax.training.runs import RunSpec
from ncjax.training.step import RunState, steps_per_epoch


def load(workdir) -> "RunSet":
    """The runs of a workdir.

    Raises:
      InputError: when it is not a workdir, or a file of it is damaged.
    """
    return RunSet(Path(workdir))


class RunSet:
    """Runs of one config. Run indices in rows are positions in `specs`. Nothing here writes into the training records.

    Attributes:
      workdir: where they live.
      config: the resolved settings.
      specs: one RunSpec a run.
      frames: (R, D, C) float32.
      labels: {"train": (N,), "test": (N,)}.
    """

    def __init__(self, workdir: Path, records_dir: Path | None = None):
        self._restored = None, None
        self.workdir, self._records_dir = workdir, records_dir or workdir
        self.config = validate(ConfigDict(records.read_json(workdir / "config.json")))
        self.specs = [RunSpec(**spec) for spec in records.read_json(workdir / "runs.json")]
        self.frames = records.read_array(workdir / "frames.npy")
        self.labels = records.read_arrays(workdir / "labels.npz")

    @cached_property
    def metrics(self) -> list[dict]:
        """Tidy rows: step, epoch, run, split, metric, value."""
        return records.read_rows(self._records_dir)

    @cached_property
    def bounds(self) -> list[dict]:
        """Every bound at the last checkpoint: run, split, bound, value, valid, vacuous, reason, terms, assumptions.

        Raises:
          InputError: where they have not been computed: `recompute` does.
        """
        return records.read_json(self._records_dir / "bounds.json")

    @cached_property
    def steps(self) -> list[int]:
        """Steps with a checkpoint, oldest first."""
        with Checkpoints(self.workdir) as checkpoints:
            return checkpoints.steps()

    @cached_property
    def evaluated(self) -> dict[int, int]:
        """{step: epoch} of every evaluation, oldest first."""
        return dict(sorted({row["step"]: row["epoch"] for row in self.metrics}.items()))

    @cached_property
    def families(self) -> dict[str, np.ndarray]:
        """{family: indices of its runs}, in the order of the specs."""
        names = [spec.family for spec in self.specs]
        return {name: np.flatnonzero(np.array(names) == name) for name in dict.fromkeys(names)}

    def curve(self, metric: str, split: str = "train") -> tuple[np.ndarray, Float[np.ndarray, "r e"]]:
        """(epochs (E,), values (R, E)) of one metric; NaN where it was not recorded.

        Raises:
          InputError: when no row has this metric and split.
        """
        if (metric, split) not in self.table:
            known = ", ".join(sorted({name for name, _ in self.table}))
            raise InputError(
                f"no rows of metric {metric!r} on split {split!r} in {self._records_dir}; there are: {known}"
            )
        return np.array(list(self.evaluated.values())), self.table[metric, split]

    def values(self, metric: str, split: str = "train", step: int | None = None) -> Float[np.ndarray, " r"]:
        """One metric of every run at one evaluated step, by default the last."""
        column = -1 if step is None else list(self.evaluated).index(step)
        return self.curve(metric, split)[1][:, column]

    def arrays(self, step: int | None = None) -> dict[str, np.ndarray]:
        """Pairwise margins (R, C, C) and predictions (R, N) of both splits at an evaluated step (default: the last)."""
        return records.read_arrays(
            records.arrays_path(self._records_dir, list(self.evaluated)[-1] if step is None else step)
        )

    def restore(self, step: int) -> RunState:
        """The states of all runs at a checkpointed step, host arrays (R, ...).

        Raises:
          InputError: when there is no intact checkpoint of that step.
        """
        if self._restored[0] != step:  # the last one is kept: features of all runs read it once
            with Checkpoints(self.workdir) as checkpoints:
                self._restored = step, checkpoints.restore(step, self._like)
        return self._restored[1]

    def features(self, step: int, split: str, run: int) -> Float[np.ndarray, "n d"]:
        """Features of one run on one split, in eval mode."""
        state = jax.tree.map(lambda leaf: leaf[run], self.restore(step))
        images = getattr(splits_of(self._job.dataset), split)
        return np.asarray(split_features(self._job.recipe, state, images))

    def export_features(self, path: Path, run: int, step: int | None = None) -> None:
        """Write features, labels and images of both splits and the frame of one run, as --features reads them.

        Raises:
          InputError: when there is no such run or no checkpoint.
        """
        if not 0 <= run < len(self.specs):
            raise InputError(f"run {run} does not exist: {self.workdir} has runs 0 to {len(self.specs) - 1}")
        step = self._last_step() if step is None else step
        arrays = {"frame": self.frames[run]}
        for split, prefix in (("train", ""), ("test", "test_")):
            arrays[f"{prefix}features"] = self.features(step, split, run)
            arrays[f"{prefix}labels"] = self.labels[split]
            arrays[f"{prefix}images"] = self.images(split)
        records.write_arrays(path, arrays)

    def images(self, split: str) -> UInt8[np.ndarray, "n h w k"]:
        """The images of a split, read from their source."""
        return getattr(splits_of(self._job.dataset), split).images

    def _last_step(self) -> int:
        if not self.steps:
            raise InputError(f"{self.workdir} holds no checkpoint yet: train it first")
        return self.steps[-1]

    def recompute(self, target: Path | None = None) -> "RunSet":
        """These runs with every metric computed anew from the checkpoints, kept under `target`, by default analysis/.

        Raises:
          InputError: when there is no checkpoint.
        """
        self._last_step()
        target = target or self.workdir / "analysis"
        records.keep_rows_until(target, -1)
        (job, programs), splits = fit(self._job, training=False), splits_of(self._job.dataset)
        placed = tuple(parallel.place_shared(split, job.layout) for split in splits)
        steps_of_epoch = steps_per_epoch(len(self.labels["train"]), self.config.batch_size)
        for step in self.steps:
            evaluation = parallel.map_waves(programs.evaluate, job.layout, self.restore(step), job.inputs, placed)
            rows = measure_runs(evaluation, self.labels, self.frames)
            records.write_arrays(records.arrays_path(target, step), arrays_of(evaluation))
            key = {"step": step, "epoch": step // steps_of_epoch}
            records.append_rows(target, [{**key, **row} for row in rows.metrics])
        records.write_json(target / "bounds.json", rows.bounds)
        return RunSet(self.workdir, target)

    @cached_property
    def _job(self) -> Job:
        return make_job(placed_automatically(self.config), (self.specs, self.frames))

    @cached_property
    def _like(self) -> RunState:
        return empty_states(self._job)

    @cached_property
    def table(self) -> dict[tuple[str, str], Float[np.ndarray, "r e"]]:
        """{(metric, split): values of every run at every evaluation}, NaN where one was not recorded."""
        columns = {step: index for index, step in enumerate(self.evaluated)}
        table = {}
        for row in self.metrics:
            key = row["metric"], row["split"]
            if key not in table:
                table[key] = np.full((len(self.specs), len(columns)), np.nan)
            table[key][row["run"], columns[row["step"]]] = row["value"]
        return table
