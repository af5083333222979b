"""Sparsity of features and frames: candidates for what orders equivalent optima."""

import jax.numpy as jnp
from jaxtyping import Array, Float

TINY = 1e-30


def hoyer(vectors: Float[Array, "n d"]) -> Float[Array, " n"]:
    """(sqrt(D) - ||v||_1 / ||v||_2) / (sqrt(D) - 1) of each row: 0 for equal entries, 1 for a single non-zero one.

    1 for a row of zeros. Source: Hoyer 2004, equation (1).
    """
    dim = vectors.shape[1]
    if dim == 1:
        return jnp.ones(len(vectors))
    ratio = jnp.sum(jnp.abs(vectors), axis=1) / jnp.sqrt(jnp.sum(vectors**2, axis=1) + TINY)
    return (dim**0.5 - ratio) / (dim**0.5 - 1) - jnp.where(ratio == 0, 1 / (dim**0.5 - 1), 0)


def zero_share(vectors: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Share of entries of each row that are exactly 0."""
    return jnp.mean(vectors == 0, axis=1)
