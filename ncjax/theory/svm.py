"""The multi-class SVM on fixed features: the largest smallest margin that any frame of norm 1 has there.

Cross-entropy in the terminal phase is said to turn the classifier into this SVM (paper Theorem 4.1, Remark 4.2), so
p_min / ||M||_F of a trained frame is compared with it.
"""

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from ncjax.errors import InputError

PENALTIES = (10.0, 100.0, 1e3, 1e4)  # of a margin below 1, for features of norm at most 1
RESOLUTION = 1e-3  # of the largest norm: classes with a smaller limit count as not separable


class SvmLimit(NamedTuple):
    """The largest p_min of frames with ||M||_F <= 1, and the frame that has it."""

    margin: float  # 0 where no frame separates the classes
    frame: Float[np.ndarray, "d c"]  # 0 where no frame separates, and in the columns of absent classes


def svm_margin(features: Float[Array | np.ndarray, "n d"], labels: Int[Array | np.ndarray, " n"]) -> SvmLimit:
    """max over ||M||_F <= 1 of min over samples and y' != y of <M_y - M_y', z>, over the classes present.

    Crammer and Singer's SVM without intercept, by scikit-learn's LinearSVC. The margin is that of the frame found, so
    never above the limit; compare it with p_min / ||M||_F. At exact collapse, features of norm s along a simplex ETF:
    s sqrt(C)/(C-1), attained by that ETF. Where nothing separates the classes by more than 1e-3 max ||z|| it is 0,
    which M = 0 attains. 50,000 samples take seconds.
    Source: Crammer, Singer 2001; paper Remark 4.2.

    Raises:
      InputError: for fewer than two classes or features that are not finite.
    """
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    present = np.unique(labels)
    if len(present) < 2:
        raise InputError(f"{len(present)} classes have samples: a margin needs at least 2")
    if not np.isfinite(features).all():
        raise InputError("some features are not finite: a run that diverged has no margins")
    rho = np.linalg.norm(features, axis=1).max()
    columns = _crammer_singer(features / max(rho, 1e-300), np.searchsorted(present, labels))
    margin = _sample_margins(features, np.searchsorted(present, labels), columns).min()
    frame = np.zeros((features.shape[1], int(present[-1]) + 1))
    if not margin > 0:
        return SvmLimit(0.0, frame)
    norm = np.linalg.norm(columns)
    frame[:, present] = columns / norm
    return SvmLimit(float(margin / norm), frame)


def _crammer_singer(features, labels) -> Float[np.ndarray, "d p"]:
    """The frame of smallest norm with all margins at least 1, or a best attempt where there is none.

    A soft margin without slack is the hard one. At an optimum strong duality gives the dual weights the sum
    ||M||^2 + penalty slack, and the limit is at most the norm of their combination, ||M||, over that sum.
    """
    for penalty in PENALTIES:
        columns = _soft_margin(features, labels, penalty, tolerance=1e-3)
        slack = np.maximum(1 - _sample_margins(features, labels, columns), 0)
        if slack.max() < 0.01:
            return _soft_margin(features, labels, penalty, tolerance=1e-6)
        norm = np.linalg.norm(columns)
        if norm < RESOLUTION * (norm**2 + penalty * slack.sum()):
            break
    return columns


def _soft_margin(features, labels, penalty: float, tolerance: float) -> Float[np.ndarray, "d p"]:
    from sklearn.exceptions import ConvergenceWarning  # imported late: scikit-learn takes a second to load
    from sklearn.svm import LinearSVC

    solver = LinearSVC(
        multi_class="crammer_singer", fit_intercept=False, C=penalty, tol=tolerance, max_iter=1000, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        columns = solver.fit(features, labels).coef_.T
    # of two classes scikit-learn keeps the difference M_1 - M_0 only
    return columns * np.array([-0.5, 0.5]) if columns.shape[1] == 1 else columns


def _sample_margins(features, labels, columns) -> Float[np.ndarray, " n"]:
    logits = features @ columns
    rows = np.arange(len(labels))
    own = logits[rows, labels]
    logits[rows, labels] = -np.inf
    return own - logits.max(axis=1)
