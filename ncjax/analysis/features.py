"""Everything that can be said of features from anywhere, and what of a run needs its features once more.

| key | what | at collapse | source |
|---|---|---|---|
| svm_margin | largest p_min that any M with ||M||_F <= 1 reaches on these features | | Crammer, Singer 2001 |
| svm_share | (p_min / ||M||_F) / svm_margin: how near the frame is to that limit, at most 1 | 1, centred means | |
| lipschitz | largest ||f(a) - f(b)|| / ||a - b|| over pairs of inputs, a lower bound on L | | paper Theorem 4.8 |
| nonnegative_loss | least cross-entropy of one z >= 0 a class for this frame, ||z|| at most their largest | | `ufm` |
| nonnegative_p_min | p_min of those features: what ReLU costs a frame, whatever the network | | `ufm` |
| bound_covering_paper | bound on the accuracy from covering numbers of the inputs, as printed | | paper Theorem 4.8 |
| bound_covering_safe | the same at half the radius | | paper Theorem 4.8 |
"""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Num

from ncjax.errors import InputError
from ncjax.store import records
from ncjax.theory import bounds, collapse, complexity, margins, svm
from ncjax.theory.bounds import Bound
from ncjax.theory.stats import class_stats
from ncjax.training.evaluate import sweep_features
from ncjax.training.measure import Measured, measure

SVM_ENTRIES = 2_000_000  # N x D above which the quadratic program would take minutes


class Given(NamedTuple):
    """Features of one split, and the inputs they belong to where known."""

    features: Float[np.ndarray, "n d"]
    labels: Int[np.ndarray, " n"]
    inputs: Num[np.ndarray, "n ..."] | None = None


class Found(NamedTuple):
    """Metrics by name, bounds by name, pairwise margins, class means."""

    metrics: dict[str, float]
    bounds: dict[str, Bound]
    pairwise: Float[np.ndarray, "c c"]
    means: Float[np.ndarray, "c d"]


def analyse(
    given: Given, frame: Float[Array | np.ndarray, "d c"], *, train_means: Float[np.ndarray, "c d"] | None = None
) -> Found:
    """Every metric, margin and bound of one split.

    Args:
      frame: the classifier M without bias.
      train_means: class means of the training split, which NC4 asks for; by default those of this split.
    """
    frame = np.asarray(frame)
    sweep = jax.device_get(sweep_features(*_arrays(given), frame.astype(np.float32), train_means))
    found = measure(sweep, given.labels, frame)
    more = extras(given, frame, covering_curves(given.inputs, given.labels, frame.shape[1]))
    pairwise = np.asarray(margins.pairwise_margins_from_stats(sweep.stats))
    metrics = found.metrics | {name: value for name, value in more.metrics.items() if name not in found.metrics}
    return Found(metrics, found.bounds | more.bounds, pairwise, sweep.stats.means)


def extras(given: Given, frame, curves: list | None) -> Measured:
    """What a streamed sweep does not give: the table above, GNC1, and `neural_collapse` with `extra`."""
    features, labels = _arrays(given)
    num_classes = np.shape(frame)[1]
    found = collapse.normalised_collapse(features, labels, num_classes)
    found |= collapse.neural_collapse(class_stats(features, labels, num_classes), frame, extra=True)
    pairwise = np.asarray(margins.pairwise_margins(features, labels, np.asarray(frame, np.float32)))
    if features.size <= SVM_ENTRIES:
        found |= _svm(features, labels, margins.p_min(pairwise) / np.linalg.norm(np.asarray(frame, np.float64)))
    if given.inputs is None:
        return Measured(found, {})
    found["lipschitz"] = float(complexity.lipschitz(given.inputs, features, key=jax.random.key(0)))
    counts = np.bincount(labels, minlength=num_classes)
    covering = {
        f"covering_{form}": bounds.covering_bound(pairwise, frame, found["lipschitz"], curves, counts, form=form)
        for form in ("paper", "safe")
    }
    return Measured(found | {f"bound_{name}": bound.value for name, bound in covering.items()}, covering)


def _svm(features, labels, reached: float) -> dict[str, float]:
    """NaN for a run that diverged, or where a single class leaves no margin."""
    undefined = not np.isfinite(features).all() or len(np.unique(labels)) < 2
    limit = float("nan") if undefined else svm.svm_margin(features, labels).margin
    return {"svm_margin": limit, "svm_share": float(reached / limit) if limit > 0 else float("nan")}


def covering_curves(inputs: Num[np.ndarray, "n ..."] | None, labels: Int[np.ndarray, " n"], num_classes: int):
    """Of the inputs, by class; they are the same for all runs, epochs and frames. None without inputs."""
    if inputs is None:
        return None
    return [np.asarray(complexity.covering_curve(inputs[labels == label])) for label in range(num_classes)]


def read_features(path: Path) -> tuple[dict[str, Given], np.ndarray]:
    """({split: Given}, frame) from an .npz of `features`, `labels`, `frame` and, where known, `images`; the same names
    with `test_` in front for held-out features.

    Raises:
      InputError: for a missing or damaged file, a missing array or shapes that do not fit.
    """
    arrays = records.read_arrays(path)
    missing = [name for name in ("features", "labels", "frame") if name not in arrays]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}: it must hold features (N, D), labels (N,), frame (D, C)")
    frame = arrays["frame"].astype(np.float64)
    splits = {"train": _given(path, arrays, "", frame)}
    if "test_features" in arrays:
        splits["test"] = _given(path, arrays, "test_", frame)
    return splits, frame


def _given(path: Path, arrays: dict, prefix: str, frame: np.ndarray) -> Given:
    features, labels = arrays[f"{prefix}features"], arrays.get(f"{prefix}labels", np.zeros(0))
    inputs = arrays.get(f"{prefix}images")
    if frame.ndim != 2 or features.ndim != 2 or features.shape[1] != len(frame) or not len(features):
        raise InputError(f"{path}: {prefix}features {features.shape} and frame {frame.shape} must be (N, D) and (D, C)")
    if labels.shape != features.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path}: {prefix}labels is {labels.dtype} {labels.shape}, not {len(features)} integers")
    if labels.min() < 0 or labels.max() >= frame.shape[1]:
        raise InputError(f"{path}: {prefix}labels must lie between 0 and {frame.shape[1] - 1}, as frame has columns")
    if not (np.isfinite(features).all() and np.isfinite(frame).all()):
        raise InputError(f"{path}: {prefix}features and frame must be finite numbers")
    if inputs is not None and len(inputs) != len(features):
        raise InputError(f"{path}: {len(inputs)} {prefix}images for {len(features)} features")
    return Given(features, labels, inputs)


def _arrays(given: Given):
    return np.asarray(given.features, np.float32), np.asarray(given.labels, np.int32)
