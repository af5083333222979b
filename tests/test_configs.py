"""Every config builds its model, and an epoch of it can be traced on data of the right shape."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax import data
from ncjax.config import validate
from ncjax.training import runs
from ncjax.training.job import make_job
from ncjax.training.step import Split, init_state, train_epoch

FOLDER = Path(__file__).parents[1] / "configs"
SHAPES = {"cifar10": ((32, 32, 3), 10), "cifar100": ((32, 32, 3), 100), "fashion_mnist": ((28, 28, 1), 10)}


def load_config(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CASES = [
    (path.stem, *variant)
    for path in sorted(FOLDER.glob("*.py"))
    for variant in ((name,) for name in getattr(load_config(path.stem), "VARIANTS", ()))
] + [("digits",)]


@pytest.fixture
def fake_data(monkeypatch):
    """Random pixels in the place of what would be downloaded."""
    real = data.load

    def load(name, **settings):
        if name == "digits":
            return real(name, **settings)
        shape, num_classes = SHAPES[name.removeprefix("tfds:")]
        images, labels = np.zeros((200, *shape), np.uint8), np.arange(200, dtype=np.int32) % num_classes
        statistics = np.ones(shape[-1], np.float32)
        return data.Dataset(name, images, labels, images, labels, num_classes, statistics, statistics, "fake")

    monkeypatch.setattr(data, "load", load)
    monkeypatch.setattr(runs.frames, "ufm_frame", lambda key, c, d, **_: np.ones((d, c)))  # tested elsewhere, slow


@pytest.mark.parametrize("case", CASES, ids=":".join)
def test_config_builds_its_model_and_traces_an_epoch(case, fake_data):
    job = make_job(validate(load_config(case[0]).get_config(*case[1:])))
    split = Split(jnp.asarray(job.dataset.train_images), jnp.asarray(job.dataset.train_labels))
    run = jax.tree.map(lambda leaf: leaf[0], job.inputs)
    state = jax.eval_shape(lambda: init_state(job.recipe, run, split.images.shape[1:]))
    after = jax.eval_shape(lambda state: train_epoch(job.recipe, state, run, split), state)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert len(job.specs) == len(job.inputs.frame) > 10
