"""What a job would take: compiled, a few steps of a few runs measured, the rest extrapolated; nothing is written."""

import dataclasses
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import jax
from ml_collections import FrozenConfigDict

from ncjax import models
from ncjax.training import parallel
from ncjax.training.cost import Cost, step_cost
from ncjax.training.job import Job, labels_of, make_job, make_programs, splits_of
from ncjax.training.measure import measure_runs
from ncjax.training.memory import GIB, compile_phases, fit, memory_limit, memory_of
from ncjax.training.progress import clock
from ncjax.training.schedule import evaluation_epochs
from ncjax.training.step import state_shape, steps_per_epoch

MEASURED_STEPS, MEASURED_IMAGES = 4, 400  # images of an evaluation, of each split
MEASURED_SECONDS, MEASURED_CALLS = 2.0, 5  # whichever comes first


class Seconds(NamedTuple):
    """Measured with one chunk of runs on every device."""

    step: float
    evaluation: float  # per image of both splits
    metrics: float  # on the host, per run


def plan(settings: FrozenConfigDict) -> list[tuple[str, str]]:
    """Lines (what, how much) about the job of a config on these devices."""
    started = time.monotonic()
    job, programs = fit(make_job(settings))
    phases = {name: memory_of(compiled) for name, compiled in compile_phases(job, programs).items()}
    compilation = time.monotonic() - started
    mesh, layout = job.layout.mesh, job.layout
    image_shape, frame_shape = job.dataset.train_images.shape[1:], job.inputs.frame.shape[1:]
    one = state_shape(job.recipe, image_shape)
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(one))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(one.params))
    plain = models.build(settings.model.name, features=settings.model.features, dtype=settings.dtype, conv_form="lax")
    cost = step_cost(dataclasses.replace(job.recipe, model=plain), image_shape, frame_shape)
    lines = [
        ("devices", f"{mesh.size} {mesh.devices.flat[0].device_kind}, mesh {_mesh(mesh)}"),
        (
            "runs",
            f"{len(job.specs)} in waves of {layout.num_runs}; {_local(job)} a device, {layout.runs_per_step} together",
        ),
        ("parameters", f"{parameters:,} a run"),
        ("state", f"{_size(state)} a run: parameters, momentum, batch statistics"),
    ]
    for name, memory in phases.items():
        parts = f"arguments {_size(memory.arguments)}, temporary {_size(memory.temporary)}"
        lines.append((f"memory, {name}", f"{_size(memory.total)} a device: {parts}, new {_size(memory.outputs)}"))
    lines += [
        ("memory allowed", f"{_size(memory_limit(settings))} a device"),
        ("one step, one run", f"{cost.flops / 1e9:.3g} GFLOP, {_size(cost.bytes_accessed)} read and written"),
        ("compilation", f"{compilation:.1f} s"),
    ]
    return lines + _extrapolated(job, measure_seconds(job), cost)


def measure_seconds(job: Job) -> Seconds:
    """Time a few steps, an evaluation of a few images and the metrics of one chunk of runs on every device."""
    part = _part(job)
    programs, count = make_programs(part), part.layout.num_runs
    splits = tuple(parallel.place_shared(split, part.layout) for split in splits_of(part.dataset))
    own = parallel.place_runs(part.inputs, part.layout)
    state = programs.init(own, (), ())

    def train():
        nonlocal state
        state = jax.block_until_ready(programs.train_epoch(state, (own,), splits[:1]))

    def evaluate():
        return jax.block_until_ready(programs.evaluate(state, (own,), splits))

    steps = steps_per_epoch(len(part.dataset.train_labels), part.recipe.batch_size)
    images = sum(len(labels) for labels in labels_of(part.dataset).values())
    found = parallel.fetch_runs(evaluate(), count)
    metrics = _seconds(lambda: measure_runs(found, labels_of(part.dataset), part.inputs.frame))
    return Seconds(_seconds(train) / steps, _seconds(evaluate) / images, metrics / count)


def num_waves(job: Job) -> int:
    """How many times the devices are filled to train all runs."""
    return -(-len(job.specs) // job.layout.num_runs)


def _part(job: Job) -> Job:
    """As many runs as the devices compute at a time, a few training steps, few images."""
    dataset, mesh = job.dataset, job.layout.mesh
    count = min(job.layout.runs_per_step * mesh.shape["runs"], len(job.specs))
    train, test = slice(max(MEASURED_STEPS * job.recipe.batch_size, MEASURED_IMAGES)), slice(MEASURED_IMAGES)
    smaller = dataclasses.replace(
        dataset,
        train_images=dataset.train_images[train],
        train_labels=dataset.train_labels[train],
        test_images=dataset.test_images[test],
        test_labels=dataset.test_labels[test],
    )
    layout = parallel.make_layout(count, mesh, job.layout.runs_per_step)
    inputs = jax.tree.map(lambda leaf: leaf[:count], job.inputs)
    return job._replace(dataset=smaller, specs=job.specs[:count], inputs=inputs, layout=layout)


def _seconds(call: Callable) -> float:
    """Median of a few calls after one that compiles."""
    call()
    taken = []
    while len(taken) < MEASURED_CALLS and sum(taken) < MEASURED_SECONDS:
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return median(taken)


def _extrapolated(job: Job, seconds: Seconds, cost: Cost) -> list[tuple[str, str]]:
    settings, dataset, layout = job.settings, job.dataset, job.layout
    together = layout.runs_per_step * layout.mesh.shape["runs"]
    chunks = num_waves(job) * layout.padded_runs // together
    steps = steps_per_epoch(len(dataset.train_labels), settings.batch_size) * settings.epochs
    evaluations = len(evaluation_epochs(settings.epochs, **settings.evaluate_epochs))
    images = len(dataset.train_labels) + len(dataset.test_labels)
    training = seconds.step * steps * chunks
    evaluation = evaluations * (seconds.evaluation * images * chunks + seconds.metrics * len(job.specs))
    rate = settings.batch_size * together / seconds.step
    return [
        ("one step, measured", f"{seconds.step * 1e3:.3g} ms for {together} runs: {rate:,.0f} run-images/s"),
        ("arithmetic, measured", f"{cost.flops * together / seconds.step / 1e9:,.0f} GFLOP/s on all devices"),
        ("training", f"{clock(training)} for {steps} steps of {len(job.specs)} runs"),
        ("evaluation", f"{clock(evaluation)} for {evaluations} times {images:,} images"),
        ("whole job", f"about {clock(training + evaluation)}, without compilation, checkpoints and figures"),
    ]


def _mesh(mesh) -> str:
    return " x ".join(f"{size} {axis}" for axis, size in mesh.shape.items())


def _local(job: Job) -> int:
    return job.layout.padded_runs // job.layout.mesh.shape["runs"]


def _size(count: float) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / 2**20:.2f} MiB"
