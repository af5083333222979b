"""The training loop: segments of epochs between evaluations, all runs together, resumable at any moment.

A segment ends where an evaluation or a checkpoint is due. Runs that do not fit the memory together are trained in
waves: each wave is placed, trained to the end of the segment, evaluated and brought back, so records and checkpoints
always hold all runs at one step and know nothing of waves.
"""

import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from ncjax.config import difference
from ncjax.errors import InputError
from ncjax.store import environment, records
from ncjax.store.checkpoint import Checkpoints
from ncjax.training import parallel
from ncjax.training.job import Job, Programs, empty_states, labels_of, make_job, make_programs, splits_of
from ncjax.training.measure import arrays_of, measure_runs
from ncjax.training.progress import Progress
from ncjax.training.step import steps_per_epoch

SAME_FRAME = 1e-3  # of the largest entry: frames that differ less differ by rounding


def evaluation_epochs(epochs: int, dense: int, log_spaced: int) -> list[int]:
    """Every epoch up to `dense`, then `log_spaced` more up to and including the last."""
    dense = min(dense, epochs)
    later = np.geomspace(max(dense, 1), epochs, log_spaced + 1)[1:]
    return sorted({*range(1, dense + 1), *(round(epoch) for epoch in later), epochs})


def checkpoint_epochs(epochs: int, every: int) -> list[int]:
    """Every `every` epochs (0: none of them) and the last."""
    return sorted({*range(every, epochs + 1, every), epochs}) if every else [epochs]


def train(settings: FrozenConfigDict, workdir: Path) -> int:
    """Train every run of a config, from the newest intact checkpoint of the workdir or from the start.

    Returns the epoch reached: `settings.epochs`, or less when a signal (SIGINT, SIGTERM) asked to stop; what was done
    until then is saved and the same call goes on from there.

    Raises:
      InputError: when the settings do not fit, or the workdir belongs to another config or other data.
    """
    job = open_workdir(workdir, make_job(settings))
    with Checkpoints(workdir) as checkpoints, _stop_signal() as stopping:
        return _train(job, workdir, checkpoints, stopping)


def open_workdir(workdir: Path, job: Job) -> Job:
    """Claim a new workdir for a job, or check that an old one belongs to it; note this start in environment.json.

    Returns the job, with the frames of the workdir.

    Raises:
      InputError: naming the settings that differ, or that data or frames do.
    """
    config_path, environment_path = workdir / "config.json", workdir / "environment.json"
    starts = []
    if config_path.exists():
        differing = difference(records.read_json(config_path), job.settings)
        if differing:
            raise InputError(f"{workdir} belongs to another config ({'; '.join(differing)}): choose another --workdir")
        starts = records.read_json(environment_path)["starts"]
        if starts[-1]["data"] != job.dataset.fingerprint:
            raise InputError(
                f"{workdir} was trained on other data than {job.dataset.name} is now: choose another --workdir"
            )
        job = _with_stored_frames(workdir, job)
    here = environment.describe(job.layout.mesh.devices.ravel()) | {"data": job.dataset.fingerprint}
    records.write_json(environment_path, {"starts": [*starts, here]})
    records.write_json(workdir / "runs.json", [spec.as_dict() for spec in job.specs])
    records.write_array(workdir / "frames.npy", job.inputs.frame)
    records.write_arrays(workdir / "labels.npz", labels_of(job.dataset))
    records.write_json(config_path, job.settings.to_dict())  # last: a config.json means that all the others are there
    return job


def _with_stored_frames(workdir: Path, job: Job) -> Job:
    """The job with the frames the runs began with: a solve on another machine rounds otherwise, a file may change."""
    stored = records.read_array(workdir / "frames.npy")
    tolerance = SAME_FRAME * np.abs(stored).max(initial=0)
    if stored.shape != job.inputs.frame.shape or not np.allclose(stored, job.inputs.frame, rtol=0, atol=tolerance):
        raise InputError(
            f"{workdir} was trained with other frames than config.frame gives now: restore the file they came from or "
            "choose another --workdir"
        )
    return job._replace(inputs=job.inputs._replace(frame=stored))


def _train(job: Job, workdir: Path, checkpoints: Checkpoints, stopping: Callable[[], bool]) -> int:
    settings, programs = job.settings, make_programs(job)
    steps = steps_per_epoch(len(job.dataset.train_labels), settings.batch_size)
    evaluate_at = evaluation_epochs(settings.epochs, **settings.evaluate_epochs)
    save_at = checkpoint_epochs(settings.epochs, settings.checkpoint_epochs)
    splits = tuple(parallel.place_shared(split, job.layout) for split in splits_of(job.dataset))
    inputs, states = (parallel.Waves(job.layout, len(job.specs)) for _ in range(2))
    inputs.load(job.inputs)
    epoch = _restore_or_init(job, programs, inputs, states, workdir, checkpoints) // steps
    with Progress(settings.epochs, epoch, len(job.specs) * steps * settings.batch_size) as progress:
        while epoch < settings.epochs and not stopping():
            end, found = min(due for due in (*evaluate_at, *save_at) if due > epoch), []
            for wave in range(len(states)):
                # a stop is honoured between epochs of the first wave; the others then go exactly as far
                stop = stopping if wave == 0 else lambda: False
                state, own = states.take(wave), inputs.take(wave)
                state, end = _advance(programs, state, own, splits[0], epoch, end, stop, progress, len(states))
                if end in evaluate_at:
                    found.append(states.fetch(wave, programs.evaluate(state, (own,), splits)))
                states.put(wave, state)
            if end > epoch and end in evaluate_at:
                _record(job, workdir, end, end * steps, parallel.concatenate(found), progress)
            epoch = end
            if (epoch in save_at or stopping()) and epoch * steps not in checkpoints.steps():
                checkpoints.save(epoch * steps, states.fetch_all())
    return epoch


def _advance(programs: Programs, state, own, train_split, epoch, end, stop, progress, num_waves):
    """Train one wave from `epoch` to `end`, or less far when told to stop; returns its state and the epoch reached."""
    while epoch < end and not stop():
        started = time.monotonic()
        state = jax.block_until_ready(programs.train_epoch(state, (own,), (train_split,)))
        progress.trained(1 / num_waves, time.monotonic() - started)
        epoch += 1
    return state, epoch


def _restore_or_init(job: Job, programs: Programs, inputs, states, workdir: Path, checkpoints: Checkpoints) -> int:
    """Fill `states` from the newest intact checkpoint or from the seeds; returns their step."""
    step, saved = checkpoints.restore_newest(empty_states(job))
    if saved is None:
        step = 0
        for wave in range(len(states)):
            states.put(wave, programs.init(inputs.take(wave), (), ()))
    else:
        print(f"resuming at step {step}", flush=True)
        states.load(saved)
    checkpoints.discard_after(step)
    records.keep_rows_until(workdir, step)
    return step


def _record(job: Job, workdir: Path, epoch: int, step: int, evaluation, progress: Progress) -> None:
    measured = measure_runs(evaluation, labels_of(job.dataset), job.inputs.frame).metrics
    records.write_arrays(records.arrays_path(workdir, step), arrays_of(evaluation))
    records.append_rows(workdir, [{"step": step, "epoch": epoch, **row} for row in measured])
    progress.evaluated(epoch, measured)
    diverged = [row["run"] for row in measured if row["metric"] == "loss" and not np.isfinite(row["value"])]
    if diverged and job.settings.on_divergence == "stop":
        raise InputError(
            f"runs {sorted(set(diverged))} diverged by epoch {epoch}: lower config.optimizer.learning_rate, "
            "or set config.on_divergence=record to go on with the others"
        )


@contextmanager
def _stop_signal():
    """Yields a function that says whether SIGINT or SIGTERM asked to stop; a second signal acts as it always does."""
    received = []
    previous = {}

    def note(number, _):
        received.append(number)
        signal.signal(number, previous[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, note)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
