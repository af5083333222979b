"""One run: SGD by hand, losses in closed form, random streams."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.theory.frames import simplex_etf
from ncjax.training import losses
from ncjax.training.step import RunState, Split, init_state, make_optimizer, train_epoch, train_step

from .conftest import Linear, make_inputs, make_recipe, make_split


def one(tree, run):
    return jax.tree.map(lambda leaf: leaf[run], tree)


def test_two_sgd_steps_of_a_linear_model_by_hand(split, inputs):
    recipe, run = make_recipe(Linear()), one(inputs, 0)
    state = init_state(recipe, run, (4, 4, 1))
    x = (np.asarray(split.images, np.float64).reshape(24, -1) - 100) / 50
    targets, frame = np.eye(3)[split.labels], run.frame.astype(np.float64)
    weights, momentum = np.asarray(state.params["Dense_0"]["kernel"], np.float64), 0.0
    for _ in range(2):
        logits = x @ weights @ frame
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        gradient = x.T @ (shares - targets) @ frame.T / 24
        momentum = 0.9 * momentum + gradient + 1e-2 * weights
        weights = weights - 0.05 * momentum
        state = train_step(recipe, state, run.frame, split)
    np.testing.assert_allclose(state.params["Dense_0"]["kernel"], weights, rtol=1e-5, atol=1e-6)
    assert state.step == 2


def test_nothing_in_the_state_has_the_shape_of_a_frame(recipe, inputs):
    state = init_state(recipe, one(inputs, 0), (4, 4, 1))
    assert all(leaf.shape != inputs.frame.shape[1:] for leaf in jax.tree.leaves(state))


def test_schedules():
    params = {"w": jnp.ones(())}
    for name, expected in (("constant", [1, 1, 1]), ("step", [1, 0.1, 0.01]), ("cosine", [1, 0.5, 0.1464466])):
        optimizer = make_optimizer(name, 1.0, 0.0, 0.0, total_steps=8)
        state, rates = optimizer.init(params), []
        for _ in range(8):
            update, state = optimizer.update({"w": jnp.ones(())}, state, params)
            rates.append(-float(update["w"]))
        np.testing.assert_allclose([rates[0], rates[4], rates[6]], expected, rtol=1e-5)


def test_cross_entropy_of_aligned_features_is_the_closed_form():
    frame = jnp.asarray(simplex_etf(10, 16, scale=1.5), jnp.float32)
    found = losses.cross_entropy(4.0 * frame.T / 1.5, jnp.arange(10), frame)
    margin = 1.5 * 4.0 * 10 / 9
    np.testing.assert_allclose(found, np.log1p(9 * np.exp(-margin)), rtol=5e-5)


def test_mse_and_dot_regression_by_hand():
    frame, features, labels = jnp.eye(2), jnp.array([[3.0, 4.0]]), jnp.array([0])
    np.testing.assert_allclose(losses.mse(features, labels, frame), [0.5 * (4 + 16)], rtol=1e-6)
    np.testing.assert_allclose(losses.dot_regression(features, labels, frame), [0.5 * (3 - 5) ** 2 / 5], rtol=1e-6)
    gradient = jax.grad(lambda z: losses.dot_regression(z, labels, frame).sum())(features)
    np.testing.assert_allclose(gradient, [[(3 - 5) / 5, 0]], rtol=1e-6)  # the norm is held constant
    assert np.isfinite(jax.grad(lambda z: losses.dot_regression(z, labels, frame).sum())(0 * features)).all()


def test_equal_order_seeds_see_equal_batches_and_others_do_not(split):
    """A model whose "features" record what it saw: one epoch at rate 0 leaves only the batch statistics."""
    inputs = make_inputs(3)
    recipe = make_recipe(optimizer=make_optimizer("constant", 0.0, 0.0, 0.0, 100))
    start = init_state(recipe, one(inputs, 0), (4, 4, 1))
    seen = [train_epoch(recipe, start, one(inputs, run), split).batch_stats for run in range(3)]
    same, other = (jax.tree.map(np.array_equal, seen[0], seen[run]) for run in (1, 2))
    assert all(jax.tree.leaves(same))
    assert not any(jax.tree.leaves(other))


def test_augmentation_has_its_own_seed(split, inputs):
    recipe = make_recipe(augment="crop_flip")
    run = one(inputs, 0)
    start = init_state(recipe, run, (4, 4, 1))
    ends = [train_epoch(recipe, start, run._replace(augment_seed=np.uint32(s)), split).params for s in (7, 7, 8)]
    kernels = [np.asarray(end["Dense_0"]["kernel"]) for end in ends]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.allclose(kernels[0], kernels[2])


def test_jitter_moves_the_weights_by_a_millionth(recipe, inputs):
    run = one(inputs, 0)
    kernels = [
        np.asarray(
            init_state(recipe, run._replace(jitter_seed=np.uint32(s)), (4, 4, 1)).params["Dense_0"]["kernel"],
            np.float64,
        )
        for s in (0, 1, 2)
    ]
    relative = (kernels[1] - kernels[0]) / kernels[0]
    assert 3e-7 < relative.std() < 3e-6
    assert not np.array_equal(kernels[1], kernels[2])


def test_a_last_partial_batch_is_left_out(inputs):
    recipe, run = make_recipe(), one(inputs, 0)
    state = init_state(recipe, run, (4, 4, 1))
    assert train_epoch(recipe, state, run, make_split(30)).step == 3


def test_normalised_features_have_unit_norm(split, inputs):
    from ncjax.training.evaluate import split_features

    recipe = make_recipe(Linear(), normalize_features=True)
    state = init_state(recipe, one(inputs, 0), (4, 4, 1))
    np.testing.assert_allclose(np.linalg.norm(split_features(recipe, state, split), axis=1), 1, rtol=1e-5)


def test_state_and_split_are_plain_tuples():
    assert issubclass(RunState, tuple)
    assert issubclass(Split, tuple)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_weight_decay_reaches_every_parameter(recipe, inputs, split, momentum):
    """With no gradient (frame 0) every parameter shrinks by exactly rate x decay."""
    recipe = make_recipe(optimizer=make_optimizer("constant", 0.5, momentum, 0.1, 100))
    run = one(inputs, 0)
    state = init_state(recipe, run, (4, 4, 1))
    after = train_step(recipe, state, 0 * run.frame, split)
    for before, now in zip(jax.tree.leaves(state.params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_allclose(now, 0.95 * np.asarray(before), rtol=1e-5, atol=1e-7)
