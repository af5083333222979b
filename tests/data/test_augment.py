"""Normalisation and augmentation on the device."""

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.data import augment


def test_normalised_pixels_by_hand():
    images = jnp.array([[[[10, 20]]], [[[30, 20]]]], jnp.uint8)
    found = augment.normalise(images, jnp.array([20.0, 20.0]), jnp.array([10.0, 5.0]))
    np.testing.assert_array_equal(found[:, 0, 0], [[-1, 0], [1, 0]])
    assert found.dtype == jnp.float32


def test_every_crop_is_a_window_of_the_padded_image_possibly_mirrored():
    images = np.random.default_rng(0).integers(1, 256, (400, 5, 6, 2)).astype(np.uint8)
    found = np.asarray(augment.crop_flip(jax.random.key(0), jnp.asarray(images)))
    assert found.shape == images.shape
    assert found.dtype == np.uint8
    seen = set()
    for image, result in zip(images, found, strict=True):
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
        windows = {
            (padded[i : i + 5, j : j + 6][:, :: -1 if flip else 1].tobytes()): (i, j, flip)
            for i in range(9)
            for j in range(9)
            for flip in (False, True)
        }
        seen.add(windows[result.tobytes()])
    assert {i for i, _, _ in seen} == {j for _, j, _ in seen} == set(range(9))
    assert 0.3 < np.mean([flip for _, _, flip in seen]) < 0.7


def test_augmentation_follows_its_key():
    images = jnp.arange(3 * 32, dtype=jnp.uint8).reshape(3, 4, 8, 1)
    first, same, other = (augment.crop_flip(jax.random.key(seed), images) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
