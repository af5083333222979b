"""Neural-collapse metrics from class statistics, in NumPy float64 on the host.

Notation: mu_c class means, mu_G the mean of the means, H = [mu_c - mu_G] (D, C), S_W the within-class covariance over
samples, S_B = H H^T / C, M the frame, E = (I - 11^T/C) / sqrt(C-1) the Gram matrix of a simplex ETF with norm 1.
The literature numbers self-duality and ETF differently (the paper calls self-duality NC2 and the ETF NC3; Papyan et
al. the reverse): keys say what is measured. Absent classes are left out of every metric; so is their frame column.

| key | formula | at collapse | source |
|---|---|---|---|
| nc1_pinv | tr(S_W S_B^+) / C | 0 | Papyan, Han, Donoho 2020 |
| nc1_quotient | tr S_W / tr S_B | 0 | Tirer, Bruna 2022 |
| nc1_cdnv | mean over i != j of (v_i + v_j) / (2 ||mu_i - mu_j||^2), v_c = E ||z - mu_c||^2 | 0 | Galanti et al. 2021 |
| nc2_equinorm_means | std / mean of ||mu_c - mu_G|| | 0 | Papyan et al. |
| nc2_equinorm_frame | std / mean of ||M_c|| | 0 | Papyan et al. |
| nc2_equiangular_means | std of cos(mu_i - mu_G, mu_j - mu_G), i != j | 0 | Papyan et al. |
| nc2_equiangular_frame | std of cos(M_i, M_j), i != j | 0 | Papyan et al. |
| nc2_maxangle_means | mean of |cos(mu_i - mu_G, mu_j - mu_G) + 1/(C-1)| | 0 | Papyan et al. |
| nc2_etf_error_means | ||H^T H / ||H^T H||_F - E||_F, in [0, 2] | 0 | Zhu et al. 2021 |
| nc2_etf_error_frame | the same of M | 0 | Zhu et al. 2021 |
| nc3_duality_error | ||M^T H / ||M^T H||_F - E||_F, in [0, 2] | 0 | Zhu et al. 2021 |
| nc3_alignment | ||M / ||M||_F - H / ||H||_F||_F, in [0, 2] | 0 | Papyan et al. |
| nc3_cosine_gap | mean of 1 - cos(M_c, mu_c - mu_G), in [0, 2] | 0 | Yang et al. 2022 |
| nc4_disagreement | share of samples whose prediction is not the nearest training mean | 0 | Papyan et al. |

With `extra=True`, u_c the columns of the frame or of H divided by their norms, d_ij = ||u_i - u_j|| over i != j:

| key + `_means` or `_frame` | formula | at collapse | source |
|---|---|---|---|
| nc2_one_vs_rest | min over c of the distance from u_c to the convex hull of the others | C/(C-1) | Jiang et al. 2023 |
| nc2_distance, nc2_distance_variance | mean and variance of d_ij | sqrt(2C/(C-1)), 0 | Liu et al. 2023 |
| nc2_log_energy, nc2_log_energy_variance | of -log d_ij | -log(2C/(C-1)) / 2, 0 | Liu et al. 2023, s = 0 |
| nc2_riesz_energy, nc2_riesz_energy_variance | of 1 / d_ij | sqrt((C-1)/(2C)), 0 | Liu et al. 2023, s = 1 |

| key | formula | at collapse | source |
|---|---|---|---|
| nc3_uniformity | variance over classes of cos(M_c, mu_c - mu_G) | 0 | Wu, Papyan 2024 |
| nc5_ood_deviation | mean of |cos(mu_c, mu_OOD)|, uncentred; with `ood_mean` given | 0 | Ammar et al. 2023 |
| gnc1_pinv, gnc1_quotient, gnc1_cdnv | NC1 of normalised features, `normalised_collapse` | 0 | Jiang et al. 2023 |

Collapse has the largest one-vs-rest distance (GNC2; in [0, 2]) and the smallest energies there are. The Riesz exponent
is 1: the harmonic one, D - 2, says nothing in many dimensions (1.5^-510). What puts all of this into scale:

| key | formula | at collapse | source |
|---|---|---|---|
| mean_norm | s = mean ||mu_c - mu_G|| | | |
| max_norm | rho = max ||z|| | | |
| frame_norm | alpha = mean ||M_c|| | | |
| global_mean_energy | ||mu_G||^2 / mean ||z||^2 | 0 if centred | |
| global_mean_logit_spread | largest minus smallest entry of M^T mu_G: rotated frames give a bias | 0 if centred | |
| loss_floor | cross-entropy of exact collapse onto a simplex ETF at this s and alpha (`scale_floor`) | | |

No frame and features of these norms have a lower loss than `loss_floor`; `ufm.free_optimum` says how much more another
frame has.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.optimize import nnls
from scipy.spatial.distance import cdist, pdist

from ncjax.theory.stats import ClassStats, class_stats


def neural_collapse(
    stats: ClassStats,
    frame: Float[Array | np.ndarray, "d c"],
    *,
    disagreement: float | None = None,
    ood_mean: Float[Array | np.ndarray, " d"] | None = None,
    extra: bool = False,
) -> dict[str, float]:
    """Every metric of the tables above, NaN where it is undefined (0/0, fewer than two classes present).

    Args:
      stats: of all samples of a split, `theory.stats.class_stats`.
      frame: the fixed classifier M.
      disagreement: share of samples on which the prediction is not the nearest training mean; None leaves NC4 out.
      ood_mean: mean feature of out-of-distribution samples; None leaves NC5 out.
      extra: also the second table and `nc3_uniformity`; half a second for 100 classes, most of it convex hulls.
    """
    counts = np.asarray(stats.counts, np.float64)
    present = counts > 0
    counts, means = counts[present], np.asarray(stats.means, np.float64)[present]
    frame = np.asarray(frame, np.float64)[:, present]
    class_scatter = np.asarray(stats.class_scatter, np.float64)[present]
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = means.mean(axis=0) if len(means) else np.zeros(frame.shape[0])
        centred = (means - centre).T
        found = _within(stats, counts, means, class_scatter, centred)
        found |= _geometry(centred, "means") | _geometry(frame, "frame") | _duality(centred, frame)
        found |= _scale(stats, counts, means, class_scatter, centre, centred, frame)
        if extra:
            found |= _spread(centred, "means") | _spread(frame, "frame") | _uniformity(centred, frame)
        if ood_mean is not None:
            found |= {"nc5_ood_deviation": _mean(np.abs(_cosines(means.T, np.asarray(ood_mean, np.float64)[:, None])))}
    return found if disagreement is None else found | {"nc4_disagreement": float(disagreement)}


def normalised_collapse(
    features: Float[Array | np.ndarray, "n d"], labels: Int[Array | np.ndarray, " n"], num_classes: int
) -> dict[str, float]:
    """NC1 of z / ||z||: `gnc1_pinv`, `gnc1_quotient`, `gnc1_cdnv`, as the nc1 of the table; all 0 at collapse.

    It forgives features that differ in length only. A feature that is 0 has no direction and stays 0.
    Source: Jiang et al. 2023 (GNC1).
    """
    features = jnp.asarray(features)
    directions = features / jnp.maximum(jnp.linalg.norm(features, axis=1, keepdims=True), 1e-30)
    stats = class_stats(directions, jnp.asarray(labels), num_classes)
    found = neural_collapse(stats, np.zeros((features.shape[1], num_classes)))
    return {"g" + key: found[key] for key in ("nc1_pinv", "nc1_quotient", "nc1_cdnv")}


def scale_floor(num_classes: int, alpha: float, s: float) -> float:
    """Cross-entropy of exact collapse: log(1 + (C-1) exp(-alpha s C/(C-1))), in nats."""
    return math.log1p((num_classes - 1) * math.exp(-alpha * s * num_classes / (num_classes - 1)))


def _within(stats, counts, means, class_scatter, centred) -> dict[str, float]:
    num_classes = len(counts)
    total = counts.sum()
    scatter = np.asarray(stats.scatter, np.float64) / total
    variance = class_scatter / counts
    distance = cdist(means, means, "sqeuclidean")
    pairs = ~np.eye(num_classes, dtype=bool)
    between = np.sum(centred**2) / num_classes
    resolution = 10 * jnp.finfo(stats.means.dtype).eps * np.linalg.norm(means)
    ratios = (variance[:, None] + variance[None])[pairs] / (2 * distance[pairs])
    return {
        "nc1_pinv": _trace_with_inverse(scatter, centred, resolution),
        "nc1_quotient": float(class_scatter.sum() / total / between) if num_classes > 1 else float("nan"),
        "nc1_cdnv": _mean(ratios),
    }


def _trace_with_inverse(scatter: np.ndarray, centred: np.ndarray, resolution: float) -> float:
    """tr(S_W S_B^+) / C through a thin SVD of H at the rank that H can have.

    A pseudo-inverse with a default cutoff inverts rounding noise in the directions that centring removed. Directions
    in which the means differ by no more than their own rounding (`resolution`; dead units) are not inverted either.
    """
    num_classes = centred.shape[1]
    if not np.isfinite(centred).all():
        return float("nan")
    directions, singular, _ = np.linalg.svd(centred, full_matrices=False)
    rank = min(num_classes - 1, centred.shape[0], int(np.sum(singular > resolution)))
    if rank < 1:
        return float("nan")
    directions, eigenvalues = directions[:, :rank], singular[:rank] ** 2 / num_classes
    within = np.einsum("dr,de,er->r", directions, scatter, directions, optimize=True)
    # S_W is positive semi-definite; float32 sums may leave -1e-9 where collapse is complete
    return float(np.sum(np.maximum(within, 0) / eigenvalues) / num_classes)


def _geometry(columns: np.ndarray, name: str) -> dict[str, float]:
    norms = np.linalg.norm(columns, axis=0)
    cosines = (columns / norms).T @ (columns / norms)
    angles = cosines[~np.eye(len(cosines), dtype=bool)]
    found = {
        f"nc2_equinorm_{name}": float(np.divide(_std(norms), _mean(norms))),
        f"nc2_equiangular_{name}": _std(angles),
        f"nc2_etf_error_{name}": _etf_error(columns.T @ columns),
    }
    if name == "means":
        found["nc2_maxangle_means"] = _mean(np.abs(angles + 1 / max(len(norms) - 1, 1)))
    return found


def _duality(centred: np.ndarray, frame: np.ndarray) -> dict[str, float]:
    unit_frame, unit_means = frame / np.linalg.norm(frame), centred / np.linalg.norm(centred)
    return {
        "nc3_duality_error": _etf_error(frame.T @ centred),
        "nc3_alignment": float(np.linalg.norm(unit_frame - unit_means)),
        "nc3_cosine_gap": _mean(np.maximum(1 - _cosines(centred, frame), 0)),  # rounding may leave -1e-16
    }


def _spread(columns: np.ndarray, name: str) -> dict[str, float]:
    """The extra metrics of directions alone."""
    unit = columns / np.linalg.norm(columns, axis=0)
    distance = pdist(unit.T)
    found = {f"nc2_one_vs_rest_{name}": _one_vs_rest(unit)}
    for key, values in (("distance", distance), ("log_energy", -np.log(distance)), ("riesz_energy", 1 / distance)):
        found |= {f"nc2_{key}_{name}": _mean(values), f"nc2_{key}_variance_{name}": _std(values) ** 2}
    return found


def _one_vs_rest(unit: np.ndarray) -> float:
    """Smallest distance from a column to the convex hull of the others.

    The point of a hull nearest to 0 from non-negative least squares: with columns p_j and minimal
    ||sum_j a_j p_j||^2 + (sum_j a_j - 1)^2 over a >= 0, it is sum_j a_j p_j / sum_j a_j (Lawson, Hanson 1974).
    """
    if unit.shape[1] < 2 or not np.isfinite(unit).all():
        return float("nan")
    target = np.append(np.zeros(len(unit)), 1.0)
    distances = []
    for c in range(unit.shape[1]):
        others = np.delete(unit, c, axis=1) - unit[:, [c]]
        weights, _ = nnls(np.vstack([others, np.ones(others.shape[1])]), target)
        distances.append(np.linalg.norm(others @ weights) / weights.sum())
    return float(min(distances))


def _uniformity(centred: np.ndarray, frame: np.ndarray) -> dict[str, float]:
    return {"nc3_uniformity": _std(_cosines(centred, frame)) ** 2}


def _cosines(columns: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Column by column."""
    return np.sum(columns * others, axis=0) / (np.linalg.norm(columns, axis=0) * np.linalg.norm(others, axis=0))


def _scale(stats, counts, means, class_scatter, centre, centred, frame) -> dict[str, float]:
    alpha, s = _mean(np.linalg.norm(frame, axis=0)), _mean(np.linalg.norm(centred, axis=0))
    energy = (class_scatter.sum() + np.sum(counts * np.sum(means**2, axis=1))) / counts.sum()
    logits = frame.T @ centre
    return {
        "mean_norm": s,
        "max_norm": float(np.max(stats.max_norm)),
        "frame_norm": alpha,
        "global_mean_energy": float(np.sum(centre**2) / energy),
        "global_mean_logit_spread": float(np.ptp(logits)) if logits.size else float("nan"),
        "loss_floor": scale_floor(len(counts), alpha, s) if len(counts) > 1 else float("nan"),
    }


def _etf_error(gram: np.ndarray) -> float:
    """||G / ||G||_F - E||_F."""
    num_classes = len(gram)
    if num_classes < 2:
        return float("nan")
    ideal = (np.eye(num_classes) - 1 / num_classes) / math.sqrt(num_classes - 1)
    return float(np.linalg.norm(gram / np.linalg.norm(gram) - ideal))


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if values.size else float("nan")


def _std(values: np.ndarray) -> float:
    return float(np.std(values)) if values.size else float("nan")
