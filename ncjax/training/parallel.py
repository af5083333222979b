"""The run axis and the devices: the only place that knows either.

One step mapped over all devices of all hosts used to be the job of `jax.pmap`. Today's jax does it with a mesh: the
devices form a grid ("runs", "data"); runs are split along the first axis by `shard_map`, each batch along the second
by the compiler, so BatchNorm sees the whole batch and nobody writes a collective. Within a device, `runs_per_step`
decides how its runs are computed: chunks of so many vmapped runs, one chunk after another in a loop, states in place.

On CPU the default is 1, a plain loop: vmap over convolution kernels becomes a grouped convolution, which is slow
there. The cores are used by declaring each a device of its own (`use_all_cores`).
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ncjax.data.sources import cache_dir
from ncjax.errors import InputError


class Layout(NamedTuple):
    """Where the runs of one wave live."""

    mesh: Mesh
    runs_per_step: int  # vmapped together on one device
    num_runs: int  # real runs in a full wave
    padded_runs: int  # a multiple of what mesh and chunks need


def use_all_cores() -> None:
    """Make every CPU core a jax device; call before jax is first used. Changes nothing on GPU and TPU."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if jax.config.jax_num_cpu_devices < 1:  # a user's own choice (JAX_NUM_CPU_DEVICES) stands
        jax.config.update("jax_num_cpu_devices", allowed or 1)


def keep_compilations() -> None:
    """Keep every compiled program in the user's cache folder, so that a second start compiles nothing again."""
    if not jax.config.jax_compilation_cache_dir:  # a user's own choice stands
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def make_mesh(num_runs: int, runs: int = 0, data: int = 0, batch_size: int = 0) -> Mesh:
    """A ("runs", "data") mesh over all devices; 0 means automatic: as many along runs as there are runs to fill them.

    The others split the batch, which they must divide; where they do not, more devices go along runs, some of which
    compute a copy. Cores of one CPU gain nothing from splitting a batch, so there the automatic mesh leaves them out.

    Raises:
      InputError: when the devices cannot form the mesh asked for, or the batch does not divide.
    """
    devices = jax.devices()
    if not runs and not data and devices[0].platform == "cpu" and jax.process_count() == 1:
        devices = devices[: min(num_runs, len(devices))]
    total = len(devices)
    if not runs:
        runs = total // data if data else _runs_axis(total, num_runs, batch_size)
    data = data or total // runs
    if runs * data != total:
        raise InputError(f"config.mesh: {runs} x {data} does not use the {total} devices; leave both 0 for automatic")
    if batch_size % data:
        raise InputError(f"config.batch_size is {batch_size}: it must divide by mesh.data {data}")
    return jax.make_mesh((runs, data), ("runs", "data"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def _runs_axis(total: int, num_runs: int, batch_size: int) -> int:
    """The largest divisor of `total` up to `num_runs`, else the smallest above, that leaves a divisor of the batch."""
    fitting = [n for n in range(1, total + 1) if total % n == 0 and batch_size % (total // n) == 0]
    return max([n for n in fitting if n <= num_runs], default=fitting[0])


def make_layout(num_runs: int, mesh: Mesh, runs_per_step: int) -> Layout:
    """How `num_runs` runs are spread; `runs_per_step` 0 means 1 on CPU, all on GPU and TPU."""
    local = -(-num_runs // mesh.shape["runs"])
    automatic = 1 if jax.default_backend() == "cpu" else local
    chunk = min(runs_per_step or automatic, local)
    return Layout(mesh, chunk, num_runs, -(-local // chunk) * chunk * mesh.shape["runs"])


def over_runs(function: Callable, layout: Layout, donate: bool = False) -> Callable:
    """`function(first, *others, *shared)` of ONE run as a jitted function of all runs.

    The result is called as `mapped(first, others, shared)`: `first` and the tuple `others` stacked (R, ...), the tuple
    `shared` the same for all runs; it returns stacked outputs. `donate` gives the memory of `first` to the outputs,
    which must look like it.
    """

    local_runs = layout.padded_runs // layout.mesh.shape["runs"]

    def local(first, others, shared):
        def one(run):
            return function(run[0], *run[1], *shared)

        if 1 < layout.runs_per_step == local_runs:
            return jax.vmap(one)((first, others))
        chunk = one if layout.runs_per_step == 1 else jax.vmap(one)
        return _chunked(chunk, first, others, layout.runs_per_step, in_place=donate)

    specs = (P("runs"), P("runs"), P())
    # check_vma off: nothing is summed over runs, and the batch axis is the compiler's
    spread = jax.shard_map(
        local, mesh=layout.mesh, in_specs=specs, out_specs=P("runs"), axis_names={"runs"}, check_vma=False
    )
    return jax.jit(spread, donate_argnums=0 if donate else ())


def _chunked(chunk: Callable, first, others, size: int, in_place: bool):
    """`chunk` of `size` runs after another; `in_place` writes each result over its part of `first`.

    A `lax.map` keeps all its results beside its arguments: a second copy of the states of all runs.
    """
    cut = jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]) if size > 1 else leaf, (first, others))
    if not in_place:
        done = jax.lax.map(chunk, cut)
    else:
        count = len(jax.tree.leaves(cut)[0])

        def body(index, firsts):
            found = chunk(jax.tree.map(lambda leaf: leaf[index], (firsts, cut[1])))
            return jax.tree.map(lambda whole, part: whole.at[index].set(part), firsts, found)

        done = jax.lax.fori_loop(0, count, body, cut[0])
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]) if size > 1 else leaf, done)


def spread_batch(mesh: Mesh) -> Callable:
    """Constrain the leading axis of every array of a batch to the "data" devices, where they divide it."""

    def spread(batch):
        divides = all(len(leaf) % mesh.shape["data"] == 0 for leaf in jax.tree.leaves(batch))
        return jax.lax.with_sharding_constraint(batch, P("data")) if divides else batch

    return spread if mesh.shape["data"] > 1 else lambda batch: batch


def shapes_of_runs(tree, layout: Layout):
    """Shapes, types and places of what `place_runs` makes of a tree with the leading axis (R, ...)."""
    sharding = NamedSharding(layout.mesh, P("runs"))

    def shape(leaf):
        return jax.ShapeDtypeStruct((layout.padded_runs, *leaf.shape[1:]), leaf.dtype, sharding=sharding)

    return jax.tree.map(shape, tree)


def shapes_of_shared(tree, layout: Layout):
    """The same for `place_shared`."""
    sharding = NamedSharding(layout.mesh, P())
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def place_runs(tree, layout: Layout):
    """Put host arrays (R, ...) on the devices, padded with copies of the last run."""

    def pad(array):
        array = np.asarray(array)
        return np.concatenate([array, np.repeat(array[-1:], layout.padded_runs - len(array), axis=0)])

    return _place(jax.tree.map(pad, tree), NamedSharding(layout.mesh, P("runs")))


def place_shared(tree, layout: Layout):
    """Put host arrays on every device."""
    return _place(tree, NamedSharding(layout.mesh, P()))


def fetch_runs(tree, num_runs: int):
    """Host arrays (R, ...) of real runs only; on several hosts every one gets all."""
    if jax.process_count() > 1:
        tree = multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(lambda array: np.asarray(array)[:num_runs], tree)


class Waves:
    """A tree of all runs, (R, ...), of which one wave at a time is on the devices; a single wave stays there."""

    def __init__(self, layout: Layout, num_runs: int):
        size = layout.num_runs
        self._layout = layout
        self._slices = [slice(start, min(start + size, num_runs)) for start in range(0, num_runs, size)]
        self._parts = [None] * len(self._slices)

    def __len__(self) -> int:
        return len(self._parts)

    def load(self, tree) -> None:
        """Set all runs from host arrays (R, ...)."""
        parts = [jax.tree.map(lambda leaf, part=part: leaf[part], tree) for part in self._slices]
        self._parts = parts if len(parts) > 1 else [place_runs(parts[0], self._layout)]

    def take(self, wave: int):
        """One wave on the devices, padded."""
        part = self._parts[wave]
        return part if len(self) == 1 else place_runs(part, self._layout)

    def put(self, wave: int, tree) -> None:
        """Keep one wave, given as it is on the devices."""
        self._parts[wave] = tree if len(self) == 1 else self.fetch(wave, tree)

    def fetch(self, wave: int, tree):
        """Host arrays of a wave's real runs."""
        return fetch_runs(tree, self._slices[wave].stop - self._slices[wave].start)

    def fetch_all(self):
        """Host arrays of all runs, (R, ...)."""
        return self.fetch(0, self._parts[0]) if len(self) == 1 else concatenate(self._parts)


def map_waves(mapped: Callable, layout: Layout, first, other, shared: tuple):
    """`mapped` (made by `over_runs`) of two host trees (R, ...), wave by wave; returns host arrays (R, ...)."""
    num_runs = len(jax.tree.leaves(first)[0])
    firsts, others = (Waves(layout, num_runs) for _ in range(2))
    firsts.load(first)
    others.load(other)
    waves = range(len(firsts))
    return concatenate([firsts.fetch(w, mapped(firsts.take(w), (others.take(w),), shared)) for w in waves])


def concatenate(trees: list):
    """Host trees of consecutive runs as one."""
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *trees)


def _place(tree, sharding: NamedSharding):
    def one(array):
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(one, jax.tree.map(np.asarray, tree))
