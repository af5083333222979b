"""Margins between classes for a fixed classifier.

gamma[y, y'] = min over samples z of class y of <M_y - M_y', z>. Nothing is clipped: a negative margin says that the
data is not separated. Source: paper Definition 4.3, Theorem 4.1, Remark 4.9.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.spatial.distance import cdist

from ncjax.theory.stats import ClassStats

Pairwise = Float[Array | np.ndarray, "c c"]


def pairwise_margins(features: Float[Array, "n d"], labels: Int[Array, " n"], frame: Float[Array, "d c"]) -> Pairwise:
    """gamma (C, C), rows the class of the sample; NaN on the diagonal and in rows of absent classes.

    At exact collapse (features of norm s along a simplex ETF of norm alpha): alpha s C/(C-1) everywhere.
    """
    gaps = _gaps(features, labels, frame)
    return _undefined_as_nan(jax.ops.segment_min(gaps, labels, frame.shape[1]))


def pairwise_margins_from_stats(stats: ClassStats) -> Pairwise:
    """`pairwise_margins` of the samples that made `stats`."""
    return _undefined_as_nan(stats.margin_min)


def min_margin(features: Float[Array, "n d"], labels: Int[Array, " n"], frame: Float[Array, "d c"]) -> Float[Array, ""]:
    """p_min, the smallest pairwise margin. Source: paper Theorem 4.1."""
    return sample_margins(features, labels, frame).min()


def sample_margins(
    features: Float[Array, "n d"], labels: Int[Array, " n"], frame: Float[Array, "d c"]
) -> Float[Array, " n"]:
    """Every sample's smallest margin: own logit minus the largest other."""
    other = jnp.arange(frame.shape[1]) != labels[:, None]
    return jnp.min(_gaps(features, labels, frame), axis=1, where=other, initial=jnp.inf)


def p_min(pairwise: Pairwise) -> float:
    """The smallest entry of pairwise margins; NaN when there is none."""
    defined = np.asarray(pairwise)[np.isfinite(pairwise)]
    return float(defined.min()) if defined.size else float("nan")


def two_sided(pairwise: Pairwise) -> Pairwise:
    """min(gamma[y, y'], gamma[y', y]), the symmetric margin of Definition 4.3; NaN where either side is."""
    return jnp.minimum(pairwise, pairwise.T)


def normalised_margins(
    pairwise: Pairwise, frame: Float[Array, "d c"], *, rho=None, lipschitz=None, mean_norm=None
) -> dict[str, Pairwise]:
    """Margins without a scale, each divided by what would change it trivially.

    `geometric` gamma / ||M_y - M_y'||, the distance of the nearest feature from the decision plane; `radius` also / rho
    (the largest ||z||); `lipschitz` also / L (Remark 4.9: a distance between inputs); `collapse`
    gamma / (alpha s C/(C-1)), s the mean norm of centred class means: 1 at exact collapse. Those whose divisor is not
    given are left out. On an exact ETF ||M_y - M_y'|| is the same for all pairs, so several are copies of each other.
    """
    frame, pairwise = np.asarray(frame, np.float64), np.asarray(pairwise, np.float64)
    num_classes = frame.shape[1]
    distance = cdist(frame.T, frame.T)
    np.fill_diagonal(distance, np.nan)
    found = {"geometric": pairwise / distance}
    if rho is not None:
        found["radius"] = pairwise / (rho * distance)
    if lipschitz is not None:
        found["lipschitz"] = pairwise / (lipschitz * distance)
    if mean_norm is not None:
        alpha = np.linalg.norm(frame, axis=0).mean()
        found["collapse"] = pairwise / (alpha * mean_norm * num_classes / (num_classes - 1))
    return found


def _gaps(features, labels, frame) -> Float[Array, "n c"]:
    """Own logit minus each logit."""
    logits = jnp.matmul(features, frame, precision=jax.lax.Precision.HIGHEST)
    return jnp.take_along_axis(logits, labels[:, None], axis=1) - logits


def _undefined_as_nan(smallest: Pairwise) -> Pairwise:
    xp = np if isinstance(smallest, np.ndarray) else jnp
    undefined = xp.eye(len(smallest), dtype=bool) | xp.isinf(smallest)
    return xp.where(undefined, xp.nan, smallest)
