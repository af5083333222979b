"""The exact null: behind a bias-free linear layer, a rotation of the frame is a re-seeding of that layer's weights."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ncjax import models
from ncjax.theory.frames import random_rotation, rotate, simplex_etf
from ncjax.training.losses import LOSSES, logits
from ncjax.training.step import RunInputs, RunState, Split, features, init_state, train_step

from .conftest import make_recipe

NUM_CLASSES, DIM, NUM_STEPS = 5, 64, 8
TOLERANCE = 2e-5  # float32 on both sides, found 1.5e-6; the planted breaks are above 1


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    labels = np.arange(40, dtype=np.int32) % NUM_CLASSES
    pixels = generator.integers(0, 150, (40, 8, 8, 1)) + 20 * labels[:, None, None, None]
    return Split(jnp.asarray(pixels.astype(np.uint8)), jnp.asarray(labels))


FRAME = np.asarray(simplex_etf(NUM_CLASSES, DIM, key=jax.random.key(1)), np.float32)
ROTATION = np.asarray(random_rotation(jax.random.key(2), DIM), np.float32)


def mlp(kind, **changes):
    """Recipe (SGD, momentum 0.9, L2 decay 1e-2) and first state of a network whose features end in `kind`."""
    recipe = make_recipe(models.build("mlp", features=kind), **changes)
    state = init_state(recipe, RunInputs(FRAME, *np.zeros(4, np.uint32)), (8, 8, 1))
    return recipe, state


def turn_last_layer(state: RunState, rotation) -> RunState:
    """W0 as a kernel (in, out) multiplied by Q: features z become Q^T z."""
    params = jax.tree.map(lambda leaf: leaf, state.params)
    params["Features_0"]["Dense_0"]["kernel"] = last_layer(state) @ rotation
    return state._replace(params=params)


def last_layer(state: RunState):
    return state.params["Features_0"]["Dense_0"]["kernel"]


@partial(jax.jit, static_argnums=0)
def trajectory(recipe, state: RunState, frame, images: Split):
    """State after the steps; logits and losses before each of them."""

    def body(state, _):
        found, _ = features(recipe, state.params, state.batch_stats, images.images, train=True)
        seen = logits(found, frame), LOSSES[recipe.loss](found, images.labels, frame)
        return train_step(recipe, state, frame, images), seen

    return jax.lax.scan(body, state, length=NUM_STEPS)


def gaps(recipe, run, other, images) -> np.ndarray:
    """Largest difference of logits and losses between two (state, frame), at each step."""
    one, two = (trajectory(recipe, *each, images)[1] for each in (run, other))
    return np.max([np.abs(x - y).reshape(NUM_STEPS, -1).max(axis=1) for x, y in zip(one, two, strict=True)], axis=0)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_rotated_frame_is_a_turned_last_layer_step_by_step(images, loss):
    recipe, state = mlp("linear", loss=loss)
    turned = turn_last_layer(state, ROTATION)
    assert gaps(recipe, (state, rotate(FRAME, ROTATION)), (turned, FRAME), images).max() < TOLERANCE


def test_last_layers_stay_related_by_the_rotation_and_all_others_equal(images):
    recipe, state = mlp("linear")
    turned = turn_last_layer(state, ROTATION)
    state, _ = trajectory(recipe, state, rotate(FRAME, ROTATION), images)
    turned, _ = trajectory(recipe, turned, FRAME, images)
    moved = np.abs(last_layer(state) - last_layer(mlp("linear")[1])).max()
    assert moved > 1_000 * TOLERANCE
    back = turn_last_layer(state, ROTATION)
    for one, two in zip(jax.tree.leaves(back.params), jax.tree.leaves(turned.params), strict=True):
        np.testing.assert_allclose(one, two, atol=TOLERANCE)


def test_a_permuted_frame_is_a_turned_last_layer_too(images):
    """Any M P of an exact simplex ETF is Q M with Q = M P M^+ on the span of M, the identity beside it."""
    permuted = FRAME[:, [2, 0, 1, 4, 3]]
    inverse = np.linalg.pinv(FRAME.astype(np.float64), rcond=1e-5)
    rotation = np.asarray(permuted @ inverse + np.eye(DIM) - FRAME @ inverse, np.float32)
    recipe, state = mlp("linear")
    turned = turn_last_layer(state, rotation)
    assert gaps(recipe, (state, permuted), (turned, FRAME), images).max() < TOLERANCE


def test_the_comparison_rejects_a_layer_that_was_not_turned(images):
    recipe, state = mlp("linear")
    assert gaps(recipe, (state, rotate(FRAME, ROTATION)), (state, FRAME), images).max() > 1_000 * TOLERANCE


def test_the_comparison_rejects_a_rotation_in_the_wrong_direction(images):
    recipe, state = mlp("linear")
    turned = turn_last_layer(state, ROTATION.T)
    assert gaps(recipe, (state, rotate(FRAME, ROTATION)), (turned, FRAME), images).max() > 1_000 * TOLERANCE


@pytest.mark.parametrize("kind", ["relu", "batch_norm"])
def test_without_the_linear_layer_a_rotation_is_no_reseeding(images, kind):
    """The nearest there is to Q^T W0: the layer before BatchNorm and ReLU, which do not commute with Q."""
    recipe, state = mlp(kind)
    params = jax.tree.map(lambda leaf: leaf, state.params)
    params["Dense_1"]["kernel"] = params["Dense_1"]["kernel"] @ ROTATION
    turned = state._replace(params=params)
    assert gaps(recipe, (state, rotate(FRAME, ROTATION)), (turned, FRAME), images).max() > 1_000 * TOLERANCE


def test_a_rule_that_treats_coordinates_one_by_one_breaks_the_null(images):
    """Sign descent, like Adam, depends on the basis: the null holds for plain SGD alone."""
    sign_descent = optax.chain(optax.stateless(lambda updates, _: jax.tree.map(jnp.sign, updates)), optax.sgd(1e-2))
    recipe, state = mlp("linear", optimizer=sign_descent)
    found = gaps(recipe, (state, rotate(FRAME, ROTATION)), (turn_last_layer(state, ROTATION), FRAME), images)
    assert found[0] < TOLERANCE
    assert found[-1] > 1_000 * TOLERANCE
