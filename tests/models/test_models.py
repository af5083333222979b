"""Backbones: size as published, features as promised."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax import models
from ncjax.errors import InputError
from ncjax.models.layers import BatchNorm, max_pool, mean_pool, normalise

PARAMETERS = {  # of the features at 32x32x3: published totals minus the classifier (10 classes)
    "resnet20": 269_722 - 650,  # He et al. 2016: 0.27M
    "resnet32": 464_154 - 650,  # He et al. 2016: 0.46M
    "vgg11": 9_225_984 - 2_752,  # torchvision's vgg11_bn.features, minus convolution biases, which BatchNorm undoes
    "densenet121": 6_956_298 - 10_250,  # the usual CIFAR variant, 3x3 stem
    "resnet18": 11_173_962 - 5_130,  # the usual CIFAR variant, 3x3 stem
}


def variables_of(model, image_shape=(32, 32, 3), features="relu"):
    module = models.build(model, features=features)
    return jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *image_shape)), train=False))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_as_many_as_published(name):
    assert count(variables_of(name)["params"]) == PARAMETERS[name]


def test_resnet8_by_hand():
    convolutions = 9 * (3 * 16 + 2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 16 * 32 + 32 * 64
    norms = 2 * (3 * 16 + 3 * 32 + 3 * 64)
    assert count(variables_of("resnet8")["params"]) == convolutions + norms


@pytest.mark.parametrize("name", models.MODELS)
def test_only_params_and_batch_stats_and_the_promised_dimension(name):
    variables = variables_of(name)
    assert set(variables) == {"params", "batch_stats"}
    module = models.build(name)
    shape = jax.eval_shape(lambda v: module.apply(v, jnp.zeros((5, 32, 32, 3)), train=False), variables).shape
    assert shape == (5, models.feature_dim(name))


@pytest.mark.parametrize("name", [name for name in models.MODELS if name != "vgg11"])
@pytest.mark.parametrize("image_shape", [(8, 8, 1), (28, 28, 1)])
def test_small_grey_images(name, image_shape):
    module, variables = models.build(name), variables_of(name, image_shape)
    found = jax.eval_shape(lambda v: module.apply(v, jnp.zeros((2, *image_shape)), train=False), variables)
    assert found.shape == (2, models.feature_dim(name))


def test_vgg_refuses_images_its_pools_would_use_up():
    with pytest.raises(InputError, match="8x8"):
        variables_of("vgg11", (8, 8, 1))


def test_unknown_names_are_refused():
    for wrong in ("resnet33", ""):
        with pytest.raises(InputError, match="resnet32"):
            models.build(wrong)
    with pytest.raises(InputError, match="im2col"):
        models.build("mlp", conv_form="fast")


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).standard_normal((12, 8, 8, 1)), jnp.float32)


def initialised(images, **settings):
    module = models.build("resnet8", **settings)
    return module, jax.jit(lambda key: module.init(key, images, train=False))(jax.random.key(0))


def applied(module, variables, images, train):
    """(features, updated statistics)."""
    return jax.jit(lambda v: module.apply(v, images, train=train, mutable=["batch_stats"]))(variables)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_features_are_float32_and_what_they_are_called(images, dtype):
    found = {}
    for kind in ("relu", "batch_norm", "linear"):
        module, variables = initialised(images, features=kind, dtype=dtype)
        found[kind], _ = applied(module, variables, images, train=True)
        assert found[kind].dtype == jnp.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert (found["relu"] >= 0).all()
    np.testing.assert_allclose(found["batch_norm"].mean(axis=0), 0, atol=1e-5)
    assert 0.3 < (found["linear"] > 0).mean() < 0.7


def test_training_updates_statistics_and_evaluation_does_not_see_the_batch(images):
    module, variables = initialised(images)
    _, updates = applied(module, variables, images, train=True)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), variables["batch_stats"], updates["batch_stats"])
    assert all(jax.tree.leaves(moved))
    alone, _ = applied(module, variables, images[:3], train=False)
    np.testing.assert_allclose(alone, applied(module, variables, images, train=False)[0][:3], rtol=1e-5, atol=1e-6)


def test_conv_form_does_not_change_the_features(images):
    (plain, variables), (other, _) = initialised(images, conv_form="lax"), initialised(images, conv_form="im2col")
    found, expected = (applied(module, variables, images, train=False)[0] for module in (other, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_vmapped_initialisation_is_single_initialisation_bitwise(images):
    module = models.build("mlp")

    def init(seed):
        return module.init(jax.random.key(seed), images, train=False)

    together = jax.jit(jax.vmap(init))(jnp.arange(3))
    for seed in range(3):
        alone = jax.jit(init)(seed)
        jax.tree.map(lambda a, b, seed=seed: np.testing.assert_array_equal(a[seed], b), together, alone)


def batch_norm_by(apply, x, scale, bias):
    """Value, batch statistics and all gradients of a loss that depends on every output."""

    def loss(x, scale, bias):
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": 0 * bias, "var": 1 + 0 * bias}}
        y, updates = apply(variables, x)
        return jnp.sum(jnp.sin(y) * jnp.arange(y.size).reshape(y.shape)), (y, updates)

    return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(x, scale, bias)


def flax_batch_norm(variables, x):
    norm = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)
    return norm.apply(variables, x, mutable=["batch_stats"])


@pytest.mark.parametrize(("shape", "shift"), [((64, 5), 0.0), ((8, 4, 3, 6), 3.0)])
def test_batch_norm_is_that_of_flax_with_its_gradients(shape, shift):
    generator = np.random.default_rng(0)
    x, scale, bias = (jnp.asarray(generator.standard_normal(s), jnp.float32) for s in (shape, shape[-1:], shape[-1:]))
    x = 2 * x + shift
    expected = batch_norm_by(flax_batch_norm, x, scale, bias)
    found = batch_norm_by(lambda v, x: BatchNorm().apply(v, x, train=True, mutable=["batch_stats"]), x, scale, bias)
    same = partial(jax.tree.map, partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3))
    same(found, expected)
    with pytest.raises(AssertionError):
        same(batch_norm_by(flax_batch_norm, x, scale, 1.01 * bias), expected)


def test_batch_norm_in_eval_mode_is_that_of_flax():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 3)), jnp.float32)
    variables = {
        "params": {"scale": jnp.array([1.0, 2, 3]), "bias": jnp.array([0.0, 1, -1])},
        "batch_stats": {"mean": jnp.array([0.5, 0, 2]), "var": jnp.array([1.0, 4, 0.25])},
    }
    expected = nn.BatchNorm(use_running_average=True, epsilon=1e-5).apply(variables, x)
    np.testing.assert_allclose(BatchNorm().apply(variables, x, train=False), expected, rtol=1e-5, atol=1e-6)


def test_variance_is_sound_far_from_zero():
    x = 1e3 + jnp.asarray(np.random.default_rng(0).standard_normal((4096, 3)), jnp.float32)
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), x, train=False)
    normalised, updates = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(normalised.std(axis=0), 1, rtol=1e-3)
    running = 0.9 + 0.1 * np.asarray(x, np.float64).var(axis=0)
    np.testing.assert_allclose(updates["batch_stats"]["var"], running, rtol=1e-4)


@pytest.mark.parametrize("distance", [0, 30])
def test_gradients_are_sound_far_from_zero(distance):
    """Against the formula in float64; the gradient of the scale is a difference there."""
    generator = np.random.default_rng(0)
    x = distance + jnp.asarray(generator.standard_normal((4096, 3)), jnp.float32)
    dy = jnp.asarray(generator.standard_normal((4096, 3)), jnp.float32)
    one = jnp.ones(3)
    dx, dscale, dbias = jax.grad(lambda *a: jnp.sum(dy * normalise(*a)[0]), argnums=(0, 1, 2))(x, one, 0 * one)
    x, dy = np.asarray(x, np.float64), np.asarray(dy, np.float64)
    inverse = (x.var(axis=0) + 1e-5) ** -0.5
    u = (x - x.mean(axis=0)) * inverse
    close = partial(np.testing.assert_allclose, rtol=0)
    close(dscale, (dy * u).sum(axis=0), atol=1e-5 * 64 * (1 + distance))  # a sum of 4096 is about 64
    close(dbias, dy.sum(axis=0), atol=1e-5 * 64)
    close(dx, inverse * (dy - dy.mean(axis=0) - u * (dy * u).mean(axis=0)), atol=1e-5 * (1 + distance))


def test_pools_by_hand():
    x = jnp.arange(15.0).reshape(1, 3, 5, 1)
    np.testing.assert_array_equal(max_pool(x)[0, :, :, 0], [[6, 8]])
    np.testing.assert_array_equal(mean_pool(x)[0, :, :, 0], [[3, 5]])


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_max_pool_passes_nan_on(place):
    assert jnp.isnan(max_pool(jnp.ones((1, 2, 2, 1)).at[0, *place].set(jnp.nan))).all()


def test_gradient_of_max_pool_goes_to_the_first_of_equal_pixels():
    x = jnp.array([[[1.0, 3, 3], [3, 2, 9]]])[..., None]
    gradient = jax.grad(lambda x: max_pool(x).sum())(x)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[0, 1, 0], [0, 0, 0]])


def test_gradient_of_max_pool_is_not_lost_when_xla_computes_its_input_twice():
    """Unoptimised code on CPU rounds the two copies apart; with `jnp.max` the sum below is then infinite."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 3)), jnp.float32)

    def total(shift, x):
        return max_pool(normalise(x, jnp.full(3, 1.1), jnp.full(3, 0.3))[0] + shift).sum()

    unoptimised = {"xla_backend_optimization_level": 0}
    slope = jax.jit(jax.grad(total)).lower(0.0, x).compile(compiler_options=unoptimised)(0.0, x)
    assert slope == 4 * 4 * 4 * 3  # one for every square
