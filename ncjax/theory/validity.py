"""What every bound has beside its formula: a value with its terms, a reason where it does not hold, its assumptions."""

import math
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from ncjax.errors import InputError

SAMPLE = "the samples are independent draws from the distribution of the error"
SEPARATED = "every margin is above 0: the classifier separates the training data"
BALANCED = "all classes are equally likely and have equally many samples"
BALL = "the features are fixed and the Rademacher complexity is that of a norm ball of classifiers"
SUPREMUM = "K, rho and L are suprema over classifiers, networks and inputs; maxima over a sample are plug-ins"
MOMENTS = "means and variances are those of the distribution: of training features a plug-in, held out an estimate"
UNTRAINED = "the features are independent of the sample, as if not trained on it; training features are not"

smallest = partial(np.fmin.reduce, initial=math.nan)  # NaN of nothing
largest = partial(np.fmax.reduce, initial=math.nan)


class Bound(NamedTuple):
    """An upper bound on the error or a lower bound on the accuracy."""

    value: float  # NaN when not valid
    terms: dict[str, float]  # what it is made of; the same keys whether or not it is valid
    valid: bool
    vacuous: bool  # above 1 on an error, below 0 on an accuracy
    assumptions: tuple[str, ...]
    reason: str = ""  # why it is not valid
    bounds: Literal["error", "accuracy"] = "error"


def make_bound(kind, value: float, terms: dict[str, float], reason: str, assumptions: tuple[str, ...]) -> Bound:
    """A bound of this kind ("error" or "accuracy"), invalid for the reason given or because its value is not finite."""
    terms = {name: float(term) for name, term in terms.items()}
    reason = reason or unless(math.isfinite(value), f"the value is not finite, made of {terms}")
    value = math.nan if reason else float(value)
    return Bound(value, terms, not reason, value > 1 if kind == "error" else value < 0, assumptions, reason, kind)


def counted_pairs(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Ordered pairs that count: rows of present classes, without columns of absent ones that no row knows."""
    unknown = ~present & np.isnan(values[present]).all(axis=0)
    return present[:, None] & ~unknown & ~np.eye(len(values), dtype=bool)


def margin_problem(values: np.ndarray, pairs: np.ndarray, name: str) -> str:
    """Why these are no positive margins; empty when they are."""
    if not pairs.any():
        return "fewer than two classes are present"
    if not np.isfinite(values[pairs]).all():
        return f"a {name} is not finite"
    wrong, least = np.sum(values[pairs] <= 0), smallest(values[pairs])
    return f"{wrong} of {pairs.sum()} pairs have a {name} of 0 or below ({least:.4g})" if wrong else ""


def unless(holds, reason: str) -> str:
    """The reason, or nothing when the condition holds: reasons are chained by `or`."""
    return "" if holds else reason


def float64(values) -> np.ndarray:
    return np.asarray(values, np.float64)


def check(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)
