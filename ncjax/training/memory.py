"""How much memory the compiled phases need, and how many runs fit: waves chosen from XLA's memory analysis."""

import math
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import FrozenConfigDict

from ncjax.errors import InputError
from ncjax.training import hosts, parallel
from ncjax.training.job import Job, Programs, make_programs, splits_of, state_shapes

GIB = 2**30
USABLE = 0.8  # of a host's memory: the rest is for waves that wait, for records and for everybody else


class Memory(NamedTuple):
    """Bytes on one device while a program runs, by XLA's memory analysis."""

    arguments: int
    temporary: int
    outputs: int  # those that do not take the place of an argument

    @property
    def total(self) -> int:
        return sum(self)


def memory_of(compiled) -> Memory:
    """Of a compiled program."""
    found = compiled.memory_analysis()
    outputs = found.output_size_in_bytes - found.alias_size_in_bytes
    return Memory(found.argument_size_in_bytes, found.temp_size_in_bytes, outputs)


def compile_phases(job: Job, programs: Programs, training: bool = True) -> dict:
    """{"train_epoch", "evaluate"} compiled for one wave; calls of the same programs reuse what is compiled here."""
    states = parallel.shapes_of_runs(state_shapes(job), job.layout)
    own = (parallel.shapes_of_runs(job.inputs, job.layout),)
    splits = tuple(parallel.shapes_of_shared(split, job.layout) for split in splits_of(job.dataset))
    lowered = {"evaluate": programs.evaluate.lower(states, own, splits)}
    if training:
        lowered["train_epoch"] = programs.train_epoch.lower(states, own, splits[:1])
    return {name: phase.compile() for name, phase in lowered.items()}


def memory_limit(settings: FrozenConfigDict) -> float:
    """Bytes that runs may fill on each device."""
    if settings.memory_gib:
        return settings.memory_gib * GIB
    device = jax.local_devices()[0]
    reported = (device.memory_stats() or {}).get("bytes_limit")
    return reported or USABLE * _host_memory() / len(jax.local_devices())


def _host_memory() -> float:
    """Bytes of memory of this machine, or of the container this process lives in."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return float("inf")
    allowed = Path("/sys/fs/cgroup/memory.max")
    text = allowed.read_text().strip() if allowed.exists() else "max"
    return physical if text == "max" else min(physical, int(text))


def fit(job: Job, training: bool = True) -> tuple[Job, Programs]:
    """The job with as many runs in a wave as the memory holds, unless the config says how many; its programs.

    Raises:
      InputError: when not even one run a device fits.
    """
    if job.settings.runs_per_wave:
        return job, make_programs(job)

    @cache
    def with_runs(local: int) -> tuple[Job, Programs]:
        fitted = _in_waves(job, local)
        return fitted, make_programs(fitted)

    @cache
    def need(local: int) -> float:
        return _need(*with_runs(local), training)

    limit = hosts.from_first(lambda: memory_limit(job.settings))
    most = -(-len(job.specs) // job.layout.mesh.shape["runs"])
    return with_runs(largest_fitting(need, most, limit))


def largest_fitting(need: Callable[[int], float], most: int, limit: float) -> int:
    """The most runs a device, up to `most`, for which `need(runs)` bytes are within the limit.

    The need grows about linearly, so two values tell where it meets the limit; infinity, where the compiler gave up,
    tells nothing and halves `most`.

    Raises:
      InputError: when one run needs more.
    """
    while most > 1 and math.isinf(need(most)):
        most //= 2
    if need(most) <= limit:
        return most
    least = need(1)
    if least > limit:
        raise InputError(
            f"one run needs {least / GIB:.2g} GiB of memory on a device where {limit / GIB:.2g} may be used "
            "(config.memory_gib): lower config.batch_size or choose a smaller config.model.name"
        )
    runs = 1 + int((limit - least) / (need(most) - least) * (most - 1))
    while runs > 1 and need(runs) > limit:
        runs -= 1
    return runs


def _need(job: Job, programs: Programs, training: bool) -> float:
    """Bytes on a device in its fullest phase; infinite where the compiler itself says that they do not fit."""
    try:
        return max(memory_of(compiled).total for compiled in compile_phases(job, programs, training).values())
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            return math.inf
        raise


def _in_waves(job: Job, local: int) -> Job:
    """The job in waves of at most `local` runs a device, all as full as each other."""
    waves = -(-len(job.specs) // (local * job.layout.mesh.shape["runs"]))
    wave = -(-len(job.specs) // waves)
    return job._replace(layout=parallel.make_layout(wave, job.layout.mesh, job.settings.runs_per_step))
