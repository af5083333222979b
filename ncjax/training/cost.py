"""What a training step needs of the hardware, by XLA's cost analysis."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from ncjax.training.step import Recipe, RunInputs, Split, init_state, train_step


class Cost(NamedTuple):
    """Of one training step of one run."""

    flops: float
    bytes_accessed: float


def step_cost(recipe: Recipe, image_shape: tuple[int, ...], inputs: RunInputs) -> Cost:
    """Of one step of the first of `inputs` on one device.

    FLOPs are those of the program as written: after optimisation convolutions become calls of libraries, whose FLOPs
    XLA does not know. A recipe with plain convolutions gives the arithmetic of the algorithm (ResNet-20: 0.92 of 3 x 2
    x 40.6 million per image: products with padding are left out, and nobody needs the gradient of the images); other
    forms compute more, in loops whose passes XLA counts once. Bytes are those of the compiled program, where fused
    operations read and write once.
    """
    recipe = dataclasses.replace(recipe, place_batch=lambda batch: batch)
    run = jax.tree.map(lambda leaf: leaf[0], inputs)
    state = jax.eval_shape(lambda run: init_state(recipe, run, image_shape), run)
    images = jax.ShapeDtypeStruct((recipe.batch_size, *image_shape), np.uint8)
    batch = Split(images, jax.ShapeDtypeStruct((recipe.batch_size,), np.int32))
    lowered = jax.jit(lambda state, frame, batch: train_step(recipe, state, frame, batch)).lower(
        state, run.frame, batch
    )
    return Cost(lowered.cost_analysis()["flops"], lowered.compile().cost_analysis()["bytes accessed"])
