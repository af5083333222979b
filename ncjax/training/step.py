"""Training of ONE run, as pure functions.

The frame is an argument: no gradient, weight decay or optimizer state can reach it. Every random draw comes from
`fold_in` of the run's own seeds and the epoch or step, so a restarted run repeats its stream bit by bit and runs with
equal seeds see equal batches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, UInt8

from ncjax.data import augment
from ncjax.training.losses import LOSSES, TINY

INIT, ORDER, AUGMENT, JITTER = range(4)  # folded into a seed: one stream per purpose
JITTER_SIZE = 1e-6


class RunState(NamedTuple):
    """What a run carries from step to step."""

    step: Int[Array, ""]
    params: Any
    batch_stats: Any
    opt_state: Any


class RunInputs(NamedTuple):
    """What makes a run this run: its frame and its seeds (uint32)."""

    frame: Float[Array, "d c"]
    init_seed: Int[Array, ""]
    order_seed: Int[Array, ""]
    augment_seed: Int[Array, ""]
    jitter_seed: Int[Array, ""]  # 0: initial weights are not perturbed


class Split(NamedTuple):
    """Images and labels on the device, shared by all runs."""

    images: UInt8[Array, "n h w k"]
    labels: Int[Array, " n"]


def _everywhere(batch):
    return batch


@dataclass(frozen=True)
class Recipe:
    """How every run is trained; static under jit."""

    model: nn.Module
    optimizer: optax.GradientTransformation
    mean: tuple[float, ...]  # per channel, in uint8 units
    std: tuple[float, ...]
    batch_size: int
    loss: str = "cross_entropy"
    augment: str = "none"
    normalize_features: bool = False
    place_batch: Callable = _everywhere  # spreads a batch over devices; set by parallel.py alone


def make_optimizer(
    schedule: str, learning_rate: float, momentum: float, weight_decay: float, total_steps: int
) -> optax.GradientTransformation:
    """SGD: L2 decay added to the gradient of every parameter, then momentum, then the schedule, as torch.optim.SGD."""
    rates = {
        "constant": lambda: optax.constant_schedule(learning_rate),
        "cosine": lambda: optax.cosine_decay_schedule(learning_rate, total_steps),
        "step": lambda: optax.piecewise_constant_schedule(
            learning_rate, {total_steps // 2: 0.1, total_steps * 3 // 4: 0.1}
        ),
    }
    sgd = optax.sgd(rates[schedule](), momentum=momentum or None)
    return optax.chain(optax.add_decayed_weights(weight_decay), sgd)


def init_state(recipe: Recipe, inputs: RunInputs, image_shape: tuple[int, ...]) -> RunState:
    """The state before the first step; a run with a jitter seed starts from weights perturbed by 1e-6, relative."""
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = recipe.model.init(_stream(inputs.init_seed, INIT), images, train=False)
    leaves, structure = jax.tree.flatten(variables["params"])
    keys = jax.random.split(_stream(inputs.jitter_seed, JITTER), len(leaves))
    size = jnp.where(inputs.jitter_seed > 0, JITTER_SIZE, 0.0)
    leaves = [leaf * (1 + size * jax.random.normal(key, leaf.shape)) for leaf, key in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(structure, leaves)
    batch_stats = variables.get("batch_stats", {})
    return RunState(jnp.zeros((), jnp.int32), params, batch_stats, recipe.optimizer.init(params))


def state_shape(recipe: Recipe, image_shape: tuple[int, ...]) -> RunState:
    """Shapes and types of the state of one run."""
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    inputs = RunInputs(jax.ShapeDtypeStruct((0, 0), jnp.float32), seed, seed, seed, seed)  # no frame enters a state
    return jax.eval_shape(lambda inputs: init_state(recipe, inputs, image_shape), inputs)


def features(recipe: Recipe, params, batch_stats, images: UInt8[Array, "b h w k"], train: bool):
    """Features (B, D) float32 and the new batch statistics (None in eval mode)."""
    normalised = augment.normalise(images, jnp.asarray(recipe.mean), jnp.asarray(recipe.std))
    variables = {"params": params, "batch_stats": batch_stats}
    mutable = ["batch_stats"] if train else False
    output = recipe.model.apply(variables, normalised, train=train, mutable=mutable)
    found, updates = output if train else (output, {"batch_stats": None})
    if recipe.normalize_features:
        found = found * jax.lax.rsqrt(jnp.sum(found**2, axis=1, keepdims=True) + TINY)
    return found, updates.get("batch_stats", {})


def train_step(recipe: Recipe, state: RunState, frame: Float[Array, "d c"], batch: Split) -> RunState:
    """One step of SGD on a batch of images already augmented."""

    def objective(params):
        found, batch_stats = features(recipe, params, state.batch_stats, batch.images, train=True)
        return LOSSES[recipe.loss](found, batch.labels, frame).mean(), batch_stats

    gradient, batch_stats = jax.grad(objective, has_aux=True)(state.params)
    updates, opt_state = recipe.optimizer.update(gradient, state.opt_state, state.params)
    return RunState(state.step + 1, optax.apply_updates(state.params, updates), batch_stats, opt_state)


def train_epoch(recipe: Recipe, state: RunState, inputs: RunInputs, train: Split) -> RunState:
    """One pass over the training split in the run's own order; the last partial batch is left out."""
    steps = steps_per_epoch(len(train.labels), recipe.batch_size)
    order_key = jax.random.fold_in(_stream(inputs.order_seed, ORDER), state.step // steps)
    order = jax.random.permutation(order_key, len(train.labels))
    batches = order[: steps * recipe.batch_size].reshape(steps, recipe.batch_size)

    def body(state, indices):
        return train_step(recipe, state, inputs.frame, _batch(recipe, state, inputs, train, indices)), None

    return jax.lax.scan(body, state, batches)[0]


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Whole batches in one pass."""
    return num_images // batch_size


def _batch(recipe: Recipe, state: RunState, inputs: RunInputs, train: Split, indices: Int[Array, " b"]) -> Split:
    images, labels = recipe.place_batch((train.images[indices], train.labels[indices]))
    if recipe.augment == "crop_flip":
        key = jax.random.fold_in(_stream(inputs.augment_seed, AUGMENT), state.step)
        images = augment.crop_flip(key, images)
    return Split(images, labels)


def _stream(seed: Int[Array, ""], purpose: int) -> Array:
    return jax.random.fold_in(jax.random.key(seed), purpose)
