"""From what a sweep brought to the host to numbers: every metric of one run on one split, float64.

| key | what | at collapse | source |
|---|---|---|---|
| loss | mean loss; nats for cross-entropy | loss_floor | paper equation (1) |
| accuracy | share of samples whose largest logit is their own | 1 | |
| p_min | smallest pairwise margin, min over y != y' of gamma[y,y'] | alpha s C/(C-1) | paper Theorem 4.1 |
| p_min_radius | min over pairs of gamma / (rho ||M_y - M_y'||) | sqrt(C/(2(C-1))), centred features | |
| p_min_collapse | p_min / (alpha s C/(C-1)) | 1 | |
| mean_margin | mean over samples of own logit minus the largest other | alpha s C/(C-1) | |
| pairwise_mean | mean over ordered pairs of classes of gamma | alpha s C/(C-1) | paper A.2 |
| pairwise_std | standard deviation over ordered pairs of gamma | 0 | paper A.2 |
| feature_hoyer | mean Hoyer sparsity of the features | | Hoyer 2004 |
| feature_zeros | share of features that are exactly 0 | | |
| rademacher | (B/N) E||sum sigma_i z_i||, B = max ||M_c||, 16 sign vectors | | Mohri et al. 2018 |
| rademacher_energy | (B/N) sqrt(sum ||z_i||^2), an upper bound on it | | |
| rademacher_radius | B rho / sqrt N, an upper bound on that | | |
| bound_margin_full | bound on the error with all constants, NaN when a margin is not positive | | paper Theorem 4.4 |
| bound_margin_paper | the same as printed | | paper Theorem 4.4 |
| bound_mohri | multiclass margin bound on the error, margin chosen from the data | | Mohri et al. 2018, Theorem 9.2 |
| bound_hoeffding | bound on the accuracy as printed; NaN outside its assumptions | | paper Theorem 4.10 |
| bound_cantelli | bound on the error from means and variances of pairwise margins | 0 | Cantelli |
| bound_cdnv | bound on the error of the nearest-mean rule | 0 | Galanti et al. 2021 |
"""

from typing import NamedTuple

import jax
import numpy as np

from ncjax.theory import bounds, complexity
from ncjax.theory.bounds import Bound
from ncjax.theory.collapse import neural_collapse
from ncjax.theory.margins import normalised_margins, p_min, pairwise_margins_from_stats
from ncjax.training.evaluate import Evaluation, Sweep


class Measured(NamedTuple):
    """What a sweep says about one run on one split."""

    metrics: dict[str, float]  # of the table above and of `theory.collapse`
    bounds: dict[str, Bound]  # those that need no more than a sweep


class Rows(NamedTuple):
    """Records of all runs and both splits, without step and epoch."""

    metrics: list[dict]  # run, split, metric, value
    bounds: list[dict]  # run, split, bound and what a `Bound` has; ready for JSON


def measure(sweep: Sweep, labels: np.ndarray, frame: np.ndarray) -> Measured:
    """Every metric and bound of one run on one split."""
    disagreement = float(np.mean(sweep.predictions != sweep.nearest))
    collapse = neural_collapse(sweep.stats, frame, disagreement=disagreement)
    pairwise = pairwise_margins_from_stats(sweep.stats)
    complexities = _complexity(sweep, frame)
    found = _bounds(sweep, pairwise, frame, collapse, complexities["rademacher"])
    metrics = {
        "loss": float(np.mean(sweep.losses, dtype=np.float64)),
        "accuracy": float(np.mean(sweep.predictions == labels)),
        **_margins(sweep, pairwise, frame, collapse),
        **collapse,
        "feature_hoyer": float(np.mean(sweep.hoyer, dtype=np.float64)),
        "feature_zeros": float(np.mean(sweep.zeros, dtype=np.float64)),
        **complexities,
        **{f"bound_{name}": bound.value for name, bound in found.items()},
    }
    return Measured(metrics, found)


def measure_runs(evaluation: Evaluation, labels: dict, frames: np.ndarray) -> Rows:
    """`measure` of every run and split of a stacked (R, ...) evaluation on the host."""
    rows = Rows([], [])
    for run, frame in enumerate(frames):
        for split, stacked in evaluation._asdict().items():
            found = measure(_run(stacked, run), labels[split], frame)
            key = {"run": run, "split": split}
            rows.metrics.extend({**key, "metric": name, "value": value} for name, value in found.metrics.items())
            rows.bounds.extend({**key, "bound": name, **bound._asdict()} for name, bound in found.bounds.items())
    return rows


def arrays_of(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """What does not fit in rows: pairwise margins (R, C, C) and predictions (R, N) of both splits."""
    arrays = {}
    for split, sweep in evaluation._asdict().items():
        pairwise = [pairwise_margins_from_stats(_run(sweep.stats, run)) for run in range(len(sweep.losses))]
        arrays[f"{split}_pairwise_margins"] = np.stack([np.asarray(p, np.float32) for p in pairwise])
        arrays[f"{split}_predictions"] = sweep.predictions.astype(np.uint16)
    return arrays


def _margins(sweep: Sweep, pairwise: np.ndarray, frame: np.ndarray, collapse: dict[str, float]) -> dict[str, float]:
    scaled = normalised_margins(pairwise, frame, rho=collapse["max_norm"], mean_norm=collapse["mean_norm"])
    gamma = np.asarray(pairwise, np.float64)[np.isfinite(pairwise)]
    return {
        "p_min": float(np.min(sweep.margins)),
        "p_min_radius": p_min(scaled["radius"]),
        "p_min_collapse": p_min(scaled["collapse"]),
        "mean_margin": float(np.mean(sweep.margins, dtype=np.float64)),
        "pairwise_mean": float(gamma.mean()) if gamma.size else float("nan"),
        "pairwise_std": float(gamma.std()) if gamma.size else float("nan"),
    }


def _complexity(sweep: Sweep, frame: np.ndarray) -> dict[str, float]:
    """Of the ball of classifiers with columns no longer than the longest of this frame, on all samples together."""
    stats, count = sweep.stats, len(sweep.losses)
    bound = float(np.linalg.norm(np.asarray(frame, np.float64), axis=0).max())
    means = np.asarray(stats.means, np.float64)
    energy = np.sum(stats.class_scatter) + np.sum(stats.counts * np.sum(means**2, axis=1))
    return {
        "rademacher": bound * float(sweep.rademacher),
        "rademacher_energy": float(complexity.rademacher_energy_bound(energy, count, bound)),
        "rademacher_radius": float(complexity.rademacher_radius_bound(np.max(stats.max_norm), count, bound)),
    }


def _bounds(
    sweep: Sweep, pairwise: np.ndarray, frame: np.ndarray, collapse: dict[str, float], rademacher: float
) -> dict[str, Bound]:
    stats, counts = sweep.stats, np.asarray(sweep.stats.counts)
    widest = bounds.plug_in_k(frame, 1.0)
    K, by_class = widest * collapse["max_norm"], widest * np.asarray(sweep.class_rademacher)
    mean = np.where(np.eye(len(counts), dtype=bool), np.nan, stats.margin_mean)
    variance = np.asarray(stats.margin_m2) / np.maximum(counts, 1)[:, None]
    return {
        "margin_full": bounds.margin_bound(pairwise, by_class, counts, K, form="full"),
        "margin_paper": bounds.margin_bound(pairwise, by_class, counts, K, form="paper"),
        "mohri": bounds.mohri_bound(sweep.margins, rademacher, frame.shape[1], K),
        "hoeffding": bounds.hoeffding_bound(pairwise, frame, stats.max_norm, num_samples=int(counts.sum())),
        "cantelli": bounds.cantelli_bound(mean, variance, counts),
        "cdnv": bounds.cdnv_bound(collapse["nc1_cdnv"], int((counts > 0).sum())),
    }


def _run(tree, run: int):
    return jax.tree.map(lambda leaf: leaf[run], tree)
