"""A network small enough to check by hand, and data for it."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.theory.frames import simplex_etf
from ncjax.training.runs import RunSpec, stacked_inputs
from ncjax.training.step import Recipe, Split, make_optimizer

NUM_CLASSES, DIM, NUM_TRAIN = 3, 5, 24


class Linear(nn.Module):
    """Flatten, one matrix."""

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(DIM, use_bias=False)(images.reshape(len(images), -1))


class Normalised(nn.Module):
    """Flatten, matrix, BatchNorm, ReLU: everything a backbone has."""

    @nn.compact
    def __call__(self, images, train):
        hidden = nn.Dense(DIM, use_bias=False)(images.reshape(len(images), -1))
        return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(hidden))


def make_recipe(model=None, **changes) -> Recipe:
    optimizer = make_optimizer("constant", 0.05, 0.9, 1e-2, total_steps=100)
    settings = {
        "model": model or Normalised(),
        "optimizer": optimizer,
        "mean": (100.0,),
        "std": (50.0,),
        "batch_size": 8,
    }
    return Recipe(**(settings | changes))


def make_split(count=NUM_TRAIN, seed=0) -> Split:
    """Images in which the label shows, on the device."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % NUM_CLASSES
    images = generator.integers(0, 200, (count, 4, 4, 1)) + 20 * labels[:, None, None, None]
    return Split(jnp.asarray(images.astype(np.uint8)), jnp.asarray(labels))


def make_inputs(count=5):
    """Runs that differ in frame or seeds; runs 0 and 1 are equal."""
    specs = [RunSpec("seed", "base", seed, seed, seed) for seed in (0, 0, 1, 2, 3, 4, 5)[:count]]
    frame = np.asarray(simplex_etf(NUM_CLASSES, DIM), np.float32)
    return stacked_inputs(specs, np.stack([np.roll(frame, index // 2, axis=1) for index in range(count)]))


@pytest.fixture
def recipe():
    return make_recipe()


@pytest.fixture
def split():
    return make_split()


@pytest.fixture
def inputs():
    return make_inputs()
