"""The variants of a benchmark: each trains all runs for one epoch per call, on the same images.

torch             one model after another, channels_last; on CPU eager on all cores, on GPU compiled by
                  `torch.compile`, under bf16 autocast for bfloat16, images already on the device
naive jit(vmap)   `jit(vmap(step))` with `lax` convolutions, one call a step: plain JAX
ncjax w=<n>       what `ncjax.main` does: an epoch in one call, on each device n runs at a time; a form of
                  convolution other than the automatic one stands behind it
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.cases import (
    MEAN,
    STD,
    WEIGHT_DECAY,
    Setting,
    host_states,
    make_inputs,
    setting_recipe,
    setting_split,
)
from experiments.benchmarks.timing import allowed_cores, seconds
from ncjax.training import parallel
from ncjax.training.step import Split, train_epoch, train_step

TORCH, NAIVE = "torch", "naive jit(vmap)"


class Variant(NamedTuple):
    """A call that trains an epoch, and what its compilation told."""

    epoch: Callable[[], None]
    compile_seconds: float | None = None  # None: not known before the first call
    planned_bytes: int | None = None  # XLA's plan of arguments, outputs and temporaries, all devices together


def make_builders(setting: Setting, conv_forms: list[str], runs_per_step: list[str], skip: tuple[str, ...] = ()):
    """{name: function that builds the variant}; `skip` names yardsticks to leave out: torch, naive."""
    builders = {}
    if "torch" not in skip and torch_device():
        builders[TORCH] = lambda: torch_variant(setting)
    if "naive" not in skip:
        builders[NAIVE] = lambda: naive_variant(setting)
    for name, (size, form, _) in strategies(setting.runs, conv_forms, runs_per_step).items():
        builders[name] = lambda size=size, form=form: ncjax_variant(setting, size, form)
    return builders


def strategies(num_runs: int, conv_forms: list[str], runs_per_step: list[str]) -> dict[str, tuple[int, str, list[str]]]:
    """{name: (runs computed together on a device, form of convolution, what was asked for that gives this number)}.

    `some` is half of a device's runs, rounded up, `all` all of them; a number that comes up twice is one strategy.
    """
    local = -(-num_runs // parallel.make_mesh(num_runs).shape["runs"])
    named = {"some": -(-local // 2), "all": local}
    asked = {}
    for word in runs_per_step:
        asked.setdefault(min(named.get(word) or int(word), local), []).append(word)
    chosen = [(size, form, words) for form in conv_forms for size, words in asked.items()]
    return {ncjax_name(size, form): (size, form, words) for size, form, words in chosen}


def ncjax_name(size: int | str, form: str = "auto") -> str:
    """As it stands in tables."""
    return f"ncjax w={size}" + ("" if form == "auto" else f" {form}")


def torch_device() -> str | None:
    """Where PyTorch computes on the backend jax uses; None where it is not installed or cannot."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    if jax.default_backend() == "cpu":
        return "cpu"
    return "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else None


def refuse_tf32(allow: bool = False) -> None:
    """float32 products of PyTorch in full precision, in convolutions too, unless allowed."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow


def as_tensors(split: Split, device: str):
    """Normalised images, channels_last, and labels."""
    import torch

    images = torch.tensor((split.images.astype(np.float32) - MEAN) / STD, device=device).permute(0, 3, 1, 2)
    labels = torch.tensor(split.labels.astype(np.int64), device=device)
    return images.contiguous(memory_format=torch.channels_last), labels


def torch_variant(setting: Setting) -> Variant:
    """An epoch of every model, one after another."""
    import torch

    device = torch_device()
    torch.set_num_threads(allowed_cores())
    refuse_tf32(allow=setting.dtype == "tf32")
    frames = make_inputs(setting.case.model, setting.runs).frame
    steps = [_torch_step(setting, frame, device) for frame in frames]
    images, labels = as_tensors(setting_split(setting), device)

    def epoch():
        for step in steps:
            order = torch.randperm(len(labels), device=device).reshape(-1, setting.case.batch_size)
            for indices in order:
                step(images[indices].contiguous(memory_format=torch.channels_last), labels[indices])
        if device == "cuda":
            torch.cuda.synchronize()

    return Variant(epoch)


def _torch_step(setting: Setting, frame, device: str):
    import torch

    from experiments.benchmarks import torch_models

    torch.manual_seed(0)
    network = torch_models.MODELS[setting.case.model](setting.case.image_shape[-1])
    network = network.to(device, memory_format=torch.channels_last)
    compiled = device == "cuda"
    return torch_models.make_step(network, frame, dtype=setting.dtype, weight_decay=WEIGHT_DECAY, compiled=compiled)


def naive_variant(setting: Setting) -> Variant:
    """jit(vmap(step)) with plain convolutions, called once a step."""
    recipe = setting_recipe(setting, "lax")
    inputs, split = make_inputs(setting.case.model, setting.runs), setting_split(setting)
    state = jax.tree.map(jnp.asarray, host_states(recipe, setting))
    images, labels, frames = (jnp.asarray(array) for array in (*split, inputs.frame))
    size, orders = setting.case.batch_size, np.random.default_rng(0)
    step = jax.jit(jax.vmap(lambda *a: train_step(recipe, *a), in_axes=(0, 0, None)), donate_argnums=0)
    step, took, planned = _compiled(step, state, frames, Split(images[:size], labels[:size]))

    def epoch():
        nonlocal state
        for indices in orders.permutation(len(labels)).reshape(-1, size):
            state = step(state, frames, Split(images[indices], labels[indices]))
        jax.block_until_ready(state)

    return Variant(epoch, took, planned)


def ncjax_variant(setting: Setting, runs_per_step: int, conv_form: str = "auto") -> Variant:
    """What `ncjax.main` does: an epoch of all runs in one call."""
    mesh = parallel.make_mesh(setting.runs)
    layout = parallel.make_layout(setting.runs, mesh, runs_per_step)
    recipe = setting_recipe(setting, conv_form, place_batch=parallel.spread_batch(mesh))
    inputs = parallel.place_runs(make_inputs(setting.case.model, setting.runs), layout)
    shared = parallel.place_shared(setting_split(setting), layout)
    train = parallel.over_runs(lambda *a: train_epoch(recipe, *a), layout, donate=True)
    state = parallel.place_runs(host_states(recipe, setting), layout)
    train, took, planned = _compiled(train, state, (inputs,), (shared,))

    def epoch():
        nonlocal state
        state = jax.block_until_ready(train(state, (inputs,), (shared,)))

    return Variant(epoch, took, planned and planned * mesh.size)


def _compiled(function, *arguments):
    """(compiled function, seconds that tracing and compiling took, bytes it plans to use on each device)."""
    found = []
    took = seconds(lambda: found.append(function.lower(*arguments).compile()))
    plan = found[0].memory_analysis()
    if plan is None:
        return found[0], took, None
    needed = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    return found[0], took, needed - plan.alias_size_in_bytes
