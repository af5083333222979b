"""Losses of one batch with a fixed classifier: features (B, D), labels (B,), frame (D, C) -> (B,) losses."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

Features, Labels, Frame = Float[Array, "b d"], Int[Array, " b"], Float[Array, "d c"]
TINY = 1e-12  # keeps the norm of an all-zero feature away from 0


def logits(features: Features, frame: Frame) -> Float[Array, "b c"]:
    """<M_c, z> in full float32 precision on every backend."""
    return jnp.matmul(features, frame, precision=jax.lax.Precision.HIGHEST)


def cross_entropy(features: Features, labels: Labels, frame: Frame) -> Float[Array, " b"]:
    """-log softmax(M^T z)_y, in nats. Source: paper equation (1)."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(features, frame), labels)


def mse(features: Features, labels: Labels, frame: Frame) -> Float[Array, " b"]:
    """||M^T z - e_y||^2 / 2. Source: Han, Papyan, Donoho 2022."""
    residual = logits(features, frame) - jax.nn.one_hot(labels, frame.shape[1])
    return 0.5 * jnp.sum(residual**2, axis=1)


def dot_regression(features: Features, labels: Labels, frame: Frame) -> Float[Array, " b"]:
    """(<M_y, z> - ||M_y|| ||z||)^2 / (2 ||z||), ||z|| held constant. Source: Yang et al. 2022, equation (10)."""
    norm = jax.lax.stop_gradient(jnp.sqrt(jnp.sum(features**2, axis=1) + TINY))
    own = jnp.take(frame.T, labels, axis=0)
    target = jnp.linalg.norm(own, axis=1) * norm
    return 0.5 * (jnp.sum(features * own, axis=1) - target) ** 2 / norm


LOSSES = {"cross_entropy": cross_entropy, "mse": mse, "dot_regression": dot_regression}
