"""Neural collapse and margins as loops in NumPy float64, straight from the formulas. Imports nothing from ncjax."""

import itertools
import math

import numpy as np


def means(z, y, num_classes):
    return np.array([z[y == c].mean(axis=0) for c in range(num_classes)])


def within(z, y, num_classes):
    """S_W, averaged over samples."""
    mu = means(z, y, num_classes)
    total = np.zeros((z.shape[1], z.shape[1]))
    for sample, label in zip(z, y, strict=True):
        total += np.outer(sample - mu[label], sample - mu[label])
    return total / len(z)


def centred(z, y, num_classes):
    """H (D, C)."""
    mu = means(z, y, num_classes)
    return (mu - mu.mean(axis=0)).T


def etf_distance(gram):
    c = len(gram)
    ideal = (np.eye(c) - np.ones((c, c)) / c) / math.sqrt(c - 1)
    return np.linalg.norm(gram / np.linalg.norm(gram) - ideal)


def cosines(columns):
    found = []
    for i in range(columns.shape[1]):
        for j in range(columns.shape[1]):
            if i != j:
                a, b = columns[:, i], columns[:, j]
                found.append(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return np.array(found)


def cdnv(z, y, num_classes):
    mu = means(z, y, num_classes)
    spread = [np.mean(np.sum((z[y == c] - mu[c]) ** 2, axis=1)) for c in range(num_classes)]
    found = [
        (spread[i] + spread[j]) / (2 * np.sum((mu[i] - mu[j]) ** 2))
        for i in range(num_classes)
        for j in range(num_classes)
        if i != j
    ]
    return np.mean(found)


def pairwise_margins(z, y, frame):
    c = frame.shape[1]
    found = np.full((c, c), np.nan)
    for i in range(c):
        for j in range(c):
            if i != j and (y == i).any():
                found[i, j] = min((frame[:, i] - frame[:, j]) @ sample for sample in z[y == i])
    return found


def neural_collapse(z, y, frame):
    """Every metric of `ncjax.theory.collapse`, NC4 apart."""
    c = frame.shape[1]
    h, s_w = centred(z, y, c), within(z, y, c)
    s_b = h @ h.T / c
    norms, frame_norms = np.linalg.norm(h, axis=0), np.linalg.norm(frame, axis=0)
    mu_g = means(z, y, c).mean(axis=0)
    logits = frame.T @ mu_g
    alpha, s = frame_norms.mean(), norms.mean()
    alignment = [1 - frame[:, i] @ h[:, i] / (frame_norms[i] * norms[i]) for i in range(c)]
    return {
        "nc1_pinv": np.trace(s_w @ np.linalg.pinv(s_b, rcond=1e-10)) / c,
        "nc1_quotient": np.trace(s_w) / np.trace(s_b),
        "nc1_cdnv": cdnv(z, y, c),
        "nc2_equinorm_means": norms.std() / norms.mean(),
        "nc2_equinorm_frame": frame_norms.std() / frame_norms.mean(),
        "nc2_equiangular_means": cosines(h).std(),
        "nc2_equiangular_frame": cosines(frame).std(),
        "nc2_maxangle_means": np.abs(cosines(h) + 1 / (c - 1)).mean(),
        "nc2_etf_error_means": etf_distance(h.T @ h),
        "nc2_etf_error_frame": etf_distance(frame.T @ frame),
        "nc3_duality_error": etf_distance(frame.T @ h),
        "nc3_alignment": np.linalg.norm(frame / np.linalg.norm(frame) - h / np.linalg.norm(h)),
        "nc3_cosine_gap": np.mean(alignment),
        "mean_norm": s,
        "max_norm": max(np.linalg.norm(sample) for sample in z),
        "frame_norm": alpha,
        "global_mean_energy": mu_g @ mu_g / np.mean(np.sum(z**2, axis=1)),
        "global_mean_logit_spread": logits.max() - logits.min(),
        "loss_floor": math.log(1 + (c - 1) * math.exp(-alpha * s * c / (c - 1))),
    }


def hull_distance(point, others):
    """From a point to the convex hull of a few columns: the nearest point lies inside the face of some subset."""
    best = np.inf
    indices = range(others.shape[1])
    for size in range(1, others.shape[1] + 1):
        for subset in itertools.combinations(indices, size):
            first, *rest = (others[:, i] for i in subset)
            edges = np.array([other - first for other in rest]).reshape(-1, len(point)).T
            weights = np.linalg.lstsq(edges, point - first, rcond=None)[0] if rest else np.zeros(0)
            if (weights >= 0).all() and weights.sum() <= 1:
                best = min(best, np.linalg.norm(first + edges @ weights - point))
    return best


def spread(columns):
    """One-vs-rest distance, and mean and variance of distances and energies, of the directions of columns."""
    unit = columns / np.linalg.norm(columns, axis=0)
    c = unit.shape[1]
    distances = [np.linalg.norm(unit[:, i] - unit[:, j]) for i in range(c) for j in range(c) if i != j]
    logs, inverses = [-math.log(d) for d in distances], [1 / d for d in distances]
    return {
        "nc2_one_vs_rest": min(hull_distance(unit[:, i], np.delete(unit, i, axis=1)) for i in range(c)),
        "nc2_distance": np.mean(distances),
        "nc2_distance_variance": np.var(distances),
        "nc2_log_energy": np.mean(logs),
        "nc2_log_energy_variance": np.var(logs),
        "nc2_riesz_energy": np.mean(inverses),
        "nc2_riesz_energy_variance": np.var(inverses),
    }


def extra_metrics(z, y, frame, ood_mean):
    """What `extra=True` and an out-of-distribution mean add."""
    c = frame.shape[1]
    h, mu = centred(z, y, c), means(z, y, c)
    cosine = [frame[:, i] @ h[:, i] / (np.linalg.norm(frame[:, i]) * np.linalg.norm(h[:, i])) for i in range(c)]
    away = [abs(m @ ood_mean) / (np.linalg.norm(m) * np.linalg.norm(ood_mean)) for m in mu]
    return {
        **{f"{key}_means": value for key, value in spread(h).items()},
        **{f"{key}_frame": value for key, value in spread(frame).items()},
        "nc3_uniformity": np.var(cosine),
        "nc5_ood_deviation": np.mean(away),
    }


def normalised_collapse(z, y, num_classes):
    """NC1 of directions."""
    unit = np.array([sample / np.linalg.norm(sample) for sample in z])
    h, s_w = centred(unit, y, num_classes), within(unit, y, num_classes)
    s_b = h @ h.T / num_classes
    return {
        "gnc1_pinv": np.trace(s_w @ np.linalg.pinv(s_b, rcond=1e-10)) / num_classes,
        "gnc1_quotient": np.trace(s_w) / np.trace(s_b),
        "gnc1_cdnv": cdnv(unit, y, num_classes),
    }
