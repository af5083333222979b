"""What a training step needs of the hardware, by XLA's cost analysis."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from ncjax.training.step import Recipe, Split, state_shape, train_step


class Cost(NamedTuple):
    """Of one training step of one run."""

    flops: float
    bytes_accessed: float


def step_cost(recipe: Recipe, image_shape: tuple[int, ...], frame_shape: tuple[int, int]) -> Cost:
    """Of one step of one run on one device.

    FLOPs are those of the program as written: after optimisation convolutions become calls of libraries, whose FLOPs
    XLA does not know. A recipe with plain convolutions gives the arithmetic of the algorithm (ResNet-20: 0.92 of 3 x 2
    x 40.6 million per image: products with padding are left out, and nobody needs the gradient of the images); other
    forms compute more, in loops whose passes XLA counts once. Bytes are those of the compiled program, where fused
    operations read and write once.
    """
    recipe = dataclasses.replace(recipe, place_batch=lambda batch: batch)
    frame = jax.ShapeDtypeStruct(frame_shape, np.float32)
    images = jax.ShapeDtypeStruct((recipe.batch_size, *image_shape), np.uint8)
    batch = Split(images, jax.ShapeDtypeStruct((recipe.batch_size,), np.int32))
    step = jax.jit(partial(train_step, recipe))
    lowered = step.lower(state_shape(recipe, image_shape), frame, batch)
    return Cost(lowered.cost_analysis()["flops"], lowered.compile().cost_analysis()["bytes accessed"])
