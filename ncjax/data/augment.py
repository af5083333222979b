"""Normalisation and augmentation of a batch on the device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

PAD = 4  # pixels, as is usual for 32x32 images


def normalise(
    images: UInt8[Array, "b h w k"], mean: Float[Array, " k"], std: Float[Array, " k"]
) -> Float[Array, "b h w k"]:
    """(x - mean) / std per channel, both in uint8 units."""
    return (images.astype(jnp.float32) - mean) / std


def crop_flip(key: Array, images: UInt8[Array, "b h w k"]) -> UInt8[Array, "b h w k"]:
    """Every image padded by 4 black pixels, cut at its own random offset, mirrored with probability 1/2."""
    offset_key, flip_key = jax.random.split(key)
    count, height, width, channels = images.shape
    offsets = jax.random.randint(offset_key, (count, 2), 0, 2 * PAD + 1)
    flips = jax.random.bernoulli(flip_key, 0.5, (count,))
    padded = jnp.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))

    def one(image, offset, flip):
        cut = jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (height, width, channels))
        return jnp.where(flip, cut[:, ::-1], cut)

    return jax.vmap(one)(padded, offsets, flips)
