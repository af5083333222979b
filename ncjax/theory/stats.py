"""ClassStats: all that neural-collapse metrics and margins need of the features, streamed and mergeable.

Batches are centred at their own class means before anything is squared, and merged by Chan's update, so float32 is
enough for a million samples with a large common offset. Source: Chan, Golub, LeVeque 1983.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class ClassStats(NamedTuple):
    """Statistics of features z (N, D) by class. The last three are None when no frame was given."""

    counts: Float[Array, " c"]
    means: Float[Array, "c d"]  # 0 for an absent class
    means_low: Float[Array, "c d"]  # what rounding has taken from `means`: thousands of merges keep all its digits
    scatter: Float[Array, "d d"]  # sum over samples of (z - mu_y)(z - mu_y)^T
    class_scatter: Float[Array, " c"]  # sum over samples of the class of ||z - mu_y||^2
    max_norm: Float[Array, " c"]  # largest ||z||; 0 for an absent class
    margin_mean: Float[Array, "c c"] | None  # of <M_y - M_y', z> over samples of class y (row)
    margin_m2: Float[Array, "c c"] | None  # sum of squared deviations from that mean
    margin_min: Float[Array, "c c"] | None  # smallest; +inf for an absent class; diagonal 0


def empty(num_classes: int, dim: int, *, with_margins: bool, dtype=jnp.float32) -> ClassStats:
    """Statistics of no samples: the identity of `merge`."""
    pairs = jnp.zeros((num_classes, num_classes), dtype)
    return ClassStats(
        counts=jnp.zeros(num_classes, dtype),
        means=jnp.zeros((num_classes, dim), dtype),
        means_low=jnp.zeros((num_classes, dim), dtype),
        scatter=jnp.zeros((dim, dim), dtype),
        class_scatter=jnp.zeros(num_classes, dtype),
        max_norm=jnp.zeros(num_classes, dtype),
        margin_mean=pairs if with_margins else None,
        margin_m2=pairs if with_margins else None,
        margin_min=jnp.full_like(pairs, jnp.inf) if with_margins else None,
    )


def class_stats(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    num_classes: int,
    *,
    frame: Float[Array, "d c"] | None = None,
    mask: Bool[Array, " n"] | None = None,
) -> ClassStats:
    """Statistics of one batch; samples where `mask` is False do not count."""
    belongs = jax.nn.one_hot(labels, num_classes, dtype=features.dtype)
    if mask is not None:
        belongs = belongs * mask[:, None]
    counts = belongs.sum(axis=0)
    means, centred = _centre(features, labels, belongs, counts)
    present = belongs.sum(axis=1)  # 1, or 0 for a masked sample
    norms = jnp.linalg.norm(features, axis=1) * present
    found = ClassStats(
        counts=counts,
        means=means,
        means_low=jnp.zeros_like(means),
        scatter=_matmul((centred * present[:, None]).T, centred),
        class_scatter=_matmul(belongs.T, jnp.sum(centred**2, axis=1)),
        max_norm=jnp.max(belongs * norms[:, None], axis=0, initial=0),
        margin_mean=None,
        margin_m2=None,
        margin_min=None,
    )
    if frame is None:
        return found
    logits = _matmul(features, frame)
    gaps = jnp.take_along_axis(logits, labels[:, None], axis=1) - logits
    margin_mean, deviations = _centre(gaps, labels, belongs, counts)
    smallest = jax.ops.segment_min(jnp.where(present[:, None] > 0, gaps, jnp.inf), labels, num_classes)
    return found._replace(margin_mean=margin_mean, margin_m2=_matmul(belongs.T, deviations**2), margin_min=smallest)


def merge(a: ClassStats, b: ClassStats) -> ClassStats:
    """Statistics of both sets of samples together."""
    counts = a.counts + b.counts
    share = b.counts / jnp.maximum(counts, 1)
    weight = a.counts * share  # n_a n_b / n
    shift = (b.means - a.means) + (b.means_low - a.means_low)
    move = share[:, None] * shift + a.means_low
    means = a.means + move
    merged = ClassStats(
        counts=counts,
        means=means,
        means_low=move - (means - a.means),
        scatter=a.scatter + b.scatter + _matmul((weight[:, None] * shift).T, shift),
        class_scatter=a.class_scatter + b.class_scatter + weight * jnp.sum(shift**2, axis=1),
        max_norm=jnp.maximum(a.max_norm, b.max_norm),
        margin_mean=None,
        margin_m2=None,
        margin_min=None,
    )
    if a.margin_mean is None or b.margin_mean is None:
        return merged
    gap = b.margin_mean - a.margin_mean
    return merged._replace(
        margin_mean=a.margin_mean + share[:, None] * gap,
        margin_m2=a.margin_m2 + b.margin_m2 + weight[:, None] * gap**2,
        margin_min=jnp.minimum(a.margin_min, b.margin_min),
    )


def _centre(values, labels, belongs, counts):
    """Class means of values (N, K), and every value minus the mean of its class."""
    means = _matmul(belongs.T, values) / jnp.maximum(counts, 1)[:, None]
    return means, values - means[labels]


def _matmul(a, b):
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
