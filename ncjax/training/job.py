"""From a config to everything its runs need: data, model, specs, layout and the jitted phases."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import FrozenConfigDict

from ncjax import data, models
from ncjax.errors import InputError
from ncjax.training import hosts, parallel
from ncjax.training.evaluate import evaluate
from ncjax.training.runs import RunSpec, base_frames, run_specs, stacked_frames, stacked_inputs
from ncjax.training.step import (
    Recipe,
    RunInputs,
    RunState,
    Split,
    init_state,
    make_optimizer,
    state_shape,
    steps_per_epoch,
    train_epoch,
)

Frames = Float[np.ndarray, "r d c"]
KEPT_FEATURES_BYTES = 2**30  # a sweep keeps its features for NC4 up to this much on a device


class Job(NamedTuple):
    """What a config asks for, made once."""

    settings: FrozenConfigDict
    dataset: data.Dataset
    recipe: Recipe
    specs: list[RunSpec]
    inputs: RunInputs  # host, (R, ...)
    layout: parallel.Layout  # of one wave


class Programs(NamedTuple):
    """The jitted phases, each for all runs of a wave."""

    init: Callable
    train_epoch: Callable
    evaluate: Callable


def make_job(settings: FrozenConfigDict, stored: tuple[list[RunSpec], Frames] | None = None) -> Job:
    """Load the data, build the model, list the runs and lay them out over the devices.

    Args:
      stored: specs and frames of all runs, where a workdir has them; made from the config otherwise.

    Raises:
      InputError: when data, frame, batch size or mesh do not fit.
    """
    dataset = hosts.first_then_others(lambda: _load(settings.dataset))
    num_train = len(dataset.train_labels)
    if settings.batch_size > num_train:
        raise InputError(
            f"config.batch_size is {settings.batch_size}, above the {num_train} training images: it must be lower"
        )
    specs, frames = stored or _specs_and_frames(settings, dataset.num_classes)
    wave = min(settings.runs_per_wave or len(specs), len(specs))
    mesh = parallel.make_mesh(wave, settings.mesh.runs, settings.mesh.data, settings.batch_size)
    optimizer = make_optimizer(
        **settings.optimizer, total_steps=settings.epochs * steps_per_epoch(num_train, settings.batch_size)
    )
    recipe = Recipe(
        model=models.build(settings.model.name, features=settings.model.features, dtype=settings.dtype),
        optimizer=optimizer,
        mean=tuple(dataset.mean.tolist()),
        std=tuple(dataset.std.tolist()),
        batch_size=settings.batch_size,
        loss=settings.loss,
        augment=settings.augment,
        normalize_features=settings.normalize_features,
        place_batch=parallel.spread_batch(mesh),
    )
    layout = parallel.make_layout(wave, mesh, settings.runs_per_step)
    return Job(settings, dataset, recipe, specs, stacked_inputs(specs, frames), layout)


def _load(dataset: FrozenConfigDict) -> data.Dataset:
    return data.load(dataset.name, data_dir=dataset.data_dir, train_per_class=dataset.train_per_class)


def _specs_and_frames(settings: FrozenConfigDict, num_classes: int) -> tuple[list[RunSpec], Frames]:
    bases = base_frames(settings.frame, num_classes, models.feature_dim(settings.model.name), settings.seed)
    specs = run_specs(settings.runs, settings.seed, len(bases) if settings.frame.kind == "file" else 0)
    return specs, stacked_frames(specs, bases, settings.seed)


def make_programs(job: Job) -> Programs:
    """The phases of one run, mapped over the runs of a wave and jitted; compiled at their first call."""
    recipe, layout = job.recipe, job.layout
    image_shape = job.dataset.train_images.shape[1:]
    kept = len(job.dataset.train_labels) * job.inputs.frame.shape[1] * 4 * layout.runs_per_step

    def init_one(inputs):
        return init_state(recipe, inputs, image_shape)

    def train_one(state, inputs, train):
        return train_epoch(recipe, state, inputs, train)

    def evaluate_one(state, inputs, train, test):
        return evaluate(recipe, state, inputs.frame, train, test, keep_features=kept <= KEPT_FEATURES_BYTES)

    return Programs(
        parallel.over_runs(init_one, layout),
        parallel.over_runs(train_one, layout, donate=True),
        parallel.over_runs(evaluate_one, layout),
    )


def state_shapes(job: Job) -> RunState:
    """Shapes and types of all states, (R, ...)."""
    one = state_shape(job.recipe, job.dataset.train_images.shape[1:])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((len(job.specs), *leaf.shape), leaf.dtype), one)


def empty_states(job: Job) -> RunState:
    """Zeros in the shapes of all states, (R, ...): what a checkpoint must look like."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state_shapes(job))


class Splits(NamedTuple):
    """Both splits of the data."""

    train: Split
    test: Split


def splits_of(dataset: data.Dataset) -> Splits:
    """The images and labels of a dataset, on the host."""
    train = Split(dataset.train_images, dataset.train_labels)
    return Splits(train, Split(dataset.test_images, dataset.test_labels))


def labels_of(dataset: data.Dataset) -> dict[str, np.ndarray]:
    """{"train": (N,), "test": (N,)}."""
    return {"train": dataset.train_labels, "test": dataset.test_labels}
