"""Every convolution form is the plain convolution, in value and in both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.models.conv import Conv, choose_form, convolve

SHAPES = [  # images, channels out, kernel size, strides
    ((5, 8, 8, 3), 4, 3, 1),
    ((33, 7, 6, 2), 3, 3, 1),
    ((5, 6, 7, 3), 4, 3, 1),
    ((5, 8, 8, 3), 20, 3, 1),
    ((16, 9, 9, 2), 5, 3, 2),
    ((5, 8, 6, 3), 4, 3, 2),
    ((3, 9, 8, 3), 18, 5, 2),
    ((3, 9, 8, 3), 6, 7, 2),
    ((3, 9, 7, 3), 6, 3, 3),
    ((17, 4, 4, 3), 6, 1, 1),
    ((3, 5, 5, 3), 6, 1, 2),
    ((2, 1, 1, 3), 4, 3, 1),
]


def random(shape, seed, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def value_and_gradients(form, x, kernel, strides):
    """A smooth loss, so that no kink of a ReLU hides or makes a difference."""

    def loss(x, kernel):
        return jnp.sum(jax.nn.softplus(convolve(x, kernel, strides, form)) ** 2)

    return jax.value_and_grad(loss, argnums=(0, 1))(x, kernel)


def assert_close(found, expected, tolerance=1e-4):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = float(jnp.abs(b).max())
        np.testing.assert_allclose(np.asarray(a, np.float64) / scale, np.asarray(b, np.float64) / scale, atol=tolerance)


def operands(image_shape, channels, size):
    return random(image_shape, 0), random((size, size, image_shape[-1], channels), 1)


@pytest.mark.parametrize("form", ["im2col", "canonical"])
@pytest.mark.parametrize(("image_shape", "channels", "size", "strides"), SHAPES)
def test_form_equals_plain_convolution(form, image_shape, channels, size, strides):
    x, kernel = operands(image_shape, channels, size)
    plain = value_and_gradients("lax", x, kernel, strides)
    assert_close(value_and_gradients(form, x, kernel, strides), plain)


def test_the_comparison_rejects_a_kernel_that_is_not_turned():
    x, kernel = operands(*SHAPES[0][:3])
    plain = value_and_gradients("lax", x, kernel, 1)
    wrong = value_and_gradients("lax", x, jnp.flip(kernel, (0, 1)), 1)
    with pytest.raises(AssertionError):
        assert_close(wrong, plain)


@pytest.mark.parametrize("form", ["im2col", "canonical"])
@pytest.mark.parametrize("mapped", [jax.vmap, lambda f: lambda *xs: jax.lax.map(lambda x: f(*x), xs)])
def test_forms_under_vmap_and_map(form, mapped):
    x, kernel = random((3, 18, 6, 6, 2), 0), random((3, 3, 3, 2, 4), 1)
    found = jax.jit(mapped(lambda x, k: value_and_gradients(form, x, k, 1)))(x, kernel)
    plain = [value_and_gradients("lax", x[run], kernel[run], 1) for run in range(3)]
    assert_close(found, jax.tree.map(lambda *leaves: jnp.stack(leaves), *plain))


@pytest.mark.parametrize("form", ["im2col", "canonical"])
def test_bfloat16_stays_bfloat16_and_close(form):
    x, kernel = (array.astype(jnp.bfloat16) for array in operands(*SHAPES[0][:3]))
    found, plain = (value_and_gradients(f, x, kernel, 1) for f in (form, "lax"))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("bfloat16")}
    assert_close(found, plain, 0.05)


def test_output_size_is_that_of_pytorch():
    for extent, strides, expected in ((8, 2, 4), (7, 2, 4), (7, 1, 7), (1, 2, 1)):
        assert convolve(jnp.ones((1, extent, extent, 1)), jnp.ones((3, 3, 1, 1)), strides).shape[1] == expected


def test_the_automatic_form_by_size():
    assert jax.default_backend() == "cpu"
    assert choose_form((4, 4, 4, 3), (3, 3, 3, 4)) == "im2col"
    assert choose_form((4, 8, 8, 3), (3, 3, 3, 4)) == "canonical"
    assert choose_form((4, 32, 32, 3), (3, 3, 3, 4)) == "canonical"
    assert choose_form((4, 32, 32, 3), (1, 1, 3, 4)) == "im2col"


def test_initial_kernels_are_he_normal_by_fan_out():
    kernel = Conv(256).init(jax.random.key(0), jnp.zeros((1, 4, 4, 64)))["params"]["kernel"]
    assert float(kernel.std()) == pytest.approx(np.sqrt(2 / (9 * 256)), rel=0.02)
