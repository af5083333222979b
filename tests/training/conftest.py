"""A network small enough to check by hand, data for it, and a workdir."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.config import default_config, validate
from ncjax.store import records
from ncjax.store.checkpoint import Checkpoints
from ncjax.theory.frames import simplex_etf
from ncjax.training.job import empty_states, make_job
from ncjax.training.runs import RunSpec, stacked_inputs
from ncjax.training.step import Recipe, Split, make_optimizer
from ncjax.training.train import train

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


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    train_split, test_split = make_split(48), make_split(30, seed=1)
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(
        path,
        train_images=train_split.images,
        train_labels=train_split.labels,
        test_images=test_split.images,
        test_labels=test_split.labels,
    )
    return path


def settings_for(data_file, **changes):
    config = default_config()
    runs = {"runs.permutations": 2, "runs.rotations": 1, "runs.seeds": 2, "runs.repeats": 0, "runs.jitters": 0}
    small = {"model.name": "mlp", "epochs": 6, "batch_size": 16, "checkpoint_epochs": 2, "evaluate_epochs.dense": 3}
    config.update_from_flattened_dict({"dataset.name": f"npz:{data_file}", **runs, **small, **changes})
    return validate(config)


def final_state(workdir, settings):
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.restore_newest(empty_states(make_job(settings)))


def assert_same_workdir(one, other, settings):
    (step, state), (other_step, other_state) = (final_state(workdir, settings) for workdir in (one, other))
    assert step == other_step
    jax.tree.map(np.testing.assert_array_equal, state, other_state)
    assert (one / records.METRICS).read_text() == (other / records.METRICS).read_text()


@pytest.fixture(scope="module")
def whole(data_file, tmp_path_factory):
    """A workdir trained without interruption."""
    workdir = tmp_path_factory.mktemp("whole")
    settings = settings_for(data_file)
    assert train(settings, workdir) == 6
    return workdir, settings
