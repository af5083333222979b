"""The training loop: segments of epochs between evaluations, all runs together, resumable at any moment.

A segment ends where an evaluation or a checkpoint is due. Runs that do not fit the memory together are trained in
waves: each wave is placed, trained to the end of the segment, evaluated and brought back, so records and checkpoints
always hold all runs at one step and know nothing of waves.

Where several processes train together, all of them run this loop and process 0 reads and writes the workdir for all.
"""

import signal
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from ncjax.config import difference
from ncjax.errors import InputError
from ncjax.store import environment, records
from ncjax.store.checkpoint import Checkpoints
from ncjax.training import hosts, parallel
from ncjax.training.job import Frames, Job, Programs, empty_states, labels_of, make_job, splits_of
from ncjax.training.measure import arrays_of, measure_runs
from ncjax.training.memory import fit
from ncjax.training.progress import Progress
from ncjax.training.schedule import checkpoint_epochs, evaluation_epochs
from ncjax.training.step import steps_per_epoch

SAME_FRAME = 1e-3  # of the largest entry: frames that differ less differ by rounding


def train(settings: FrozenConfigDict, workdir: Path) -> int:
    """Train every run of a config, from the newest intact checkpoint of the workdir or from the start.

    Returns the epoch reached: `settings.epochs`, or less when a signal (SIGINT, SIGTERM) asked to stop; what was done
    until then is saved and the same call goes on from there.

    Raises:
      InputError: when the settings do not fit, or the workdir belongs to another config or other data.
    """
    job = make_job(settings)
    hosts.require_same(f"{settings.to_json()} {job.dataset.fingerprint}")
    frames = hosts.from_first(lambda: check_workdir(workdir, job))
    job, programs = fit(job._replace(inputs=job.inputs._replace(frame=frames)))
    hosts.from_first(lambda: claim_workdir(workdir, job))
    with Checkpoints(workdir) if hosts.is_first() else nullcontext() as checkpoints, _stop_signal() as stopping:
        return _train(job, programs, workdir, checkpoints, stopping)


def check_workdir(workdir: Path, job: Job) -> Frames:
    """The frames of the job, those of the workdir where it has some: a solve on another machine rounds otherwise.

    Raises:
      InputError: when the workdir belongs to another job: naming the settings that differ, or that data or frames do.
    """
    if not (workdir / "config.json").exists():
        return job.inputs.frame
    differing = difference(records.read_json(workdir / "config.json"), job.settings)
    if differing:
        raise InputError(f"{workdir} belongs to another config ({'; '.join(differing)}): choose another --workdir")
    if _starts(workdir)[-1]["data"] != job.dataset.fingerprint:
        raise InputError(
            f"{workdir} was trained on other data than {job.dataset.name} is now: choose another --workdir"
        )
    stored = records.read_array(workdir / "frames.npy")
    tolerance = SAME_FRAME * np.abs(stored).max(initial=0)
    if stored.shape != job.inputs.frame.shape or not np.allclose(stored, job.inputs.frame, rtol=0, atol=tolerance):
        raise InputError(
            f"{workdir} was trained with other frames than config.frame gives now: restore the file they came from or "
            "choose another --workdir"
        )
    return stored


def claim_workdir(workdir: Path, job: Job) -> None:
    """Write what a workdir says of its job before it has trained, and note this start in environment.json."""
    starts = _starts(workdir) if (workdir / "config.json").exists() else []
    here = environment.describe(job.layout.mesh.devices.ravel()) | {"data": job.dataset.fingerprint}
    records.write_json(workdir / "environment.json", {"starts": [*starts, here]})
    records.write_json(workdir / "runs.json", [spec.as_dict() for spec in job.specs])
    records.write_array(workdir / "frames.npy", job.inputs.frame)
    records.write_arrays(workdir / "labels.npz", labels_of(job.dataset))
    # last: a config.json means that all the others are there
    records.write_json(workdir / "config.json", job.settings.to_dict())


def _starts(workdir: Path) -> list[dict]:
    return records.read_json(workdir / "environment.json")["starts"]


def _train(job: Job, programs: Programs, workdir: Path, checkpoints, stopping: Callable[[], bool]) -> int:
    settings = job.settings
    steps = steps_per_epoch(len(job.dataset.train_labels), settings.batch_size)
    evaluate_at = evaluation_epochs(settings.epochs, **settings.evaluate_epochs)
    save_at = checkpoint_epochs(settings.epochs, settings.checkpoint_epochs)
    splits = tuple(parallel.place_shared(split, job.layout) for split in splits_of(job.dataset))
    inputs, states = (parallel.Waves(job.layout, len(job.specs)) for _ in range(2))
    inputs.load(job.inputs)
    epoch = _restore_or_init(job, programs, inputs, states, workdir, checkpoints) // steps
    work = len(job.specs) * steps * settings.batch_size
    with Progress(settings.epochs, epoch, work, live=hosts.is_first()) as progress:
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
                record = partial(_record, job, workdir, end, end * steps, parallel.concatenate(found), progress)
                hosts.from_first(record)
            epoch = end
            if epoch in save_at or stopping():
                hosts.from_first(partial(_save, checkpoints, epoch * steps, states.fetch_all()))
    return epoch


def _save(checkpoints: Checkpoints, step: int, state) -> None:
    if step not in checkpoints.steps():
        checkpoints.save(step, state)


def _advance(programs: Programs, state, own, train_split, epoch, end, stop, progress, num_waves):
    """Train one wave from `epoch` to `end`, or less far when told to stop; returns its state and the epoch reached."""
    while epoch < end and not stop():
        started = time.monotonic()
        state = jax.block_until_ready(programs.train_epoch(state, (own,), (train_split,)))
        progress.trained(1 / num_waves, time.monotonic() - started)
        epoch += 1
    return state, epoch


def _restore_or_init(job: Job, programs: Programs, inputs, states, workdir: Path, checkpoints) -> int:
    """Fill `states` from the newest intact checkpoint or from the seeds; returns their step."""
    step, saved = hosts.from_first(lambda: _restore(job, workdir, checkpoints))
    if saved is None:
        for wave in range(len(states)):
            states.put(wave, programs.init(inputs.take(wave), (), ()))
    else:
        states.load(saved)
    return step


def _restore(job: Job, workdir: Path, checkpoints: Checkpoints):
    """(step, state) of the newest intact checkpoint, (0, None) without one; drops what was recorded after it."""
    step, saved = checkpoints.restore_newest(empty_states(job))
    if saved is None:
        step = 0
    else:
        print(f"resuming at step {step}", flush=True)
    checkpoints.discard_after(step)
    records.keep_rows_until(workdir, step)
    return step, saved


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
    """Yields a function that says whether SIGINT or SIGTERM asked any process to stop; a second one acts as always."""
    received = []
    previous = {}

    def note(number, _):
        received.append(number)
        signal.signal(number, previous[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, note)
    try:
        yield lambda: hosts.any_process(bool(received))
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
