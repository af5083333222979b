"""Generalization bounds, in NumPy float64 on the host.

Each returns a `Bound`: the value, its terms, whether it is valid, and the assumptions it rests on. A valid bound may be
`vacuous`; one outside its assumptions has the value NaN and a reason. Nothing is clipped or squared away. Most inputs
are plug-ins (the suprema K, rho and L are maxima over a sample) and training features are fitted to the sample, so
these numbers are for ranking runs, epochs and families, not for certifying one.

Pairwise arrays have the class of the sample in rows, as `margins.pairwise_margins` gives them. Classes without samples
have prior 0 and drop out as rows; as columns they stay where a margin to them is known, because the classifier can
still answer with them. In formulas y is the true class, y' any other, n_y its samples, N all, C the classes, d the
dimension; sums over y' leave out y.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float, Real
from scipy.spatial.distance import cdist

from ncjax.theory.complexity import covering_number_from_curve
from ncjax.theory.validity import (
    BALANCED,
    BALL,
    MOMENTS,
    SAMPLE,
    SEPARATED,
    SUPREMUM,
    UNTRAINED,
    Bound,
    check,
    counted_pairs,
    float64,
    largest,
    make_bound,
    margin_problem,
    smallest,
    unless,
)

Frame = Float[Array | np.ndarray, "d c"]
Pairwise = Float[Array | np.ndarray, "c c"]
PerClass = Real[Array | np.ndarray, " c"]
Scalar = float | int | np.floating | Real[Array | np.ndarray, ""]
JUST_BELOW = 1 - 1e-6  # of a margin: at the smallest margin itself a sample counts as an error; float32 resolves 1e-7
SATURATED = 0.9  # balls per input from which inputs do not tell the covering number of their support from infinity


@np.errstate(all="ignore")  # here and below: what an invalid input makes of the terms is reported, not warned about
def margin_bound(
    pairwise: Pairwise,
    rademacher: PerClass,
    counts: PerClass,
    K: Scalar,
    *,
    form: str = "full",
    delta: float = 0.05,
    loss01: Pairwise | None = None,
) -> Bound:
    """Multiclass margin bound of the paper, with probability 1 - delta.

    form="full": Err <= L01 + sum_y p(y) sum_y' [4 Rad_y/gamma + sqrt(log log2(4K/gamma) / n_y)
    + sqrt(log(2/delta') / (2 n_y))] with gamma = gamma[y,y'], p(y) = n_y/N, delta' = delta / number of pairs (C(C-1)
    when no class is absent). form="paper": as printed, Rad_y without the 4 and without the last term; with equal n_y
    it is Corollary 4.5. Source: paper Theorem 4.4, Corollary 4.5; Kakade, Sridharan, Tewari 2008 for the constants.

    Args:
      pairwise: gamma, the margins.
      rademacher: by class, of n_y samples, B = max ||M_y - M_y'|| (`complexity.rademacher_by_class`).
      K: supremum of |<M_y - M_y', z>|, `plug_in_k`. The term `margin_over_k` above 1 shows that it is none.
      loss01: share of the samples of class y with <M_y - M_y', z> <= gamma[y,y'], for margins chosen beforehand. By
        default 0 and the bound is taken just below the smallest margins: at them one sample of each pair counts.

    Invalid for a margin of 0 or below and for 4K/gamma of 2 or below.
    """
    check(form in ("full", "paper"), f"form is 'full' or 'paper', not {form!r}")
    check(0 < delta < 1, f"delta must lie between 0 and 1, not {delta}")
    gamma, n, rad = float64(pairwise), float64(counts)[:, None], float64(rademacher).reshape(-1, 1)
    pairs = counted_pairs(gamma, n[:, 0] > 0)
    known = {"min_margin": smallest(gamma[pairs]), "margin_over_k": largest(gamma[pairs]) / np.float64(K)}
    if loss01 is None:
        gamma, loss01 = gamma * JUST_BELOW, 0.0
    large = np.all(4 * K / gamma[pairs] > 2)
    reason = margin_problem(gamma, pairs, "margin") or unless(
        large, f"4K/gamma must be above 2, K = {K:.4g} is too small"
    )

    def expected(per_pair):
        return np.sum(np.where(pairs, per_pair * n / n.sum(), 0))

    full = form == "full"
    terms = {
        "loss01": expected(float64(loss01)),
        "complexity": expected((4 if full else 1) * rad / gamma),
        "log_log": expected(np.sqrt(np.log(np.log2(4 * K / gamma)) / n)),
        "confidence": expected(np.sqrt(np.log(2 * pairs.sum() / delta) / (2 * n))) if full else 0.0,
    }
    return make_bound("error", sum(terms.values()), terms | known, reason, (SAMPLE, SEPARATED, BALL, SUPREMUM))


@np.errstate(all="ignore")
def mohri_bound(
    margins: Float[Array | np.ndarray, " n"],
    rademacher: Scalar,
    num_classes: int,
    K: Scalar,
    *,
    gamma: float | None = None,
    gamma_fixed: bool = False,
    empirical_rademacher: bool = True,
    delta: float = 0.05,
) -> Bound:
    """Multiclass margin bound whose complexity grows with C instead of C(C-1) pairs; with probability 1 - delta.

    g fixed before seeing the data: Err <= L01(g) + (4C/g) Rad + sqrt(log(1/delta) / (2N)). g chosen from the data
    (default): Err <= L01(g) + (8C/g) Rad + sqrt(log log2(2K/g) / N) + sqrt(log(2/delta) / (2N)). With the empirical
    Rademacher complexity the last term is 3 sqrt(log(2/delta) / (2N)) and 3 sqrt(log(4/delta) / (2N)).
    Source: Mohri, Rostamizadeh, Talwalkar 2018, Theorem 9.2; the other versions as their Theorems 5.8 and 5.9.

    Args:
      margins: smallest margin of each sample, `margins.sample_margins`; L01(g) is the share of them <= g.
      rademacher: of all N samples, B = max ||M_c|| (`complexity.rademacher`); empirical: of this sample, not expected.
      K: upper end of the range from which g is chosen; not used when g is fixed. Invalid for g above K or not above 0.
      gamma: g; by default just below the smallest margin, where L01 is 0. `gamma_fixed`: chosen before seeing the data.
    """
    check(0 < delta < 1, f"delta must lie between 0 and 1, not {delta}")
    check(gamma is not None or not gamma_fixed, "gamma_fixed needs the gamma that was fixed")
    margins = float64(margins)
    g = np.float64(smallest(margins) * JUST_BELOW if gamma is None else gamma)
    reason = (
        unless(margins.size and np.isfinite(margins).all(), "there are no samples, or a margin is not finite")
        or unless(g > 0, f"the margin {g:.4g} is not above 0: choose a positive gamma")
        or unless(gamma_fixed or g <= K, f"a margin chosen from the data must not exceed K: {g:.4g} > {K:.4g}")
    )
    n = np.float64(margins.size)
    events = (1 if gamma_fixed else 2) * (2 if empirical_rademacher else 1)
    terms = {
        "loss01": np.sum(margins <= g) / n,
        "complexity": (4 if gamma_fixed else 8) * num_classes * rademacher / g,
        "log_log": 0.0 if gamma_fixed else np.sqrt(np.log(np.log2(2 * K / g)) / n),
        "confidence": (3 if empirical_rademacher else 1) * np.sqrt(np.log(events / delta) / (2 * n)),
    }
    extra = {"gamma": g, "min_margin": smallest(margins)}
    return make_bound("error", sum(terms.values()), terms | extra, reason, (SAMPLE, BALL, SUPREMUM))


@np.errstate(all="ignore")
def covering_bound(
    pairwise: Pairwise, frame: Frame, lipschitz: Scalar, curves: Sequence, counts: PerClass, *, form: str = "paper"
) -> Bound:
    """Acc > 1 - (1/2N) sum_y N(eps_y, support of class y), eps_y = min_y' gamma[y,y'] / (L ||M_y - M_y'||).

    The largest covering number over y' is the one at the smallest radius. form="paper": at eps_y; form="safe": at
    eps_y/2, since two points of one ball are up to 2 eps apart. The covering number is the greedy m of the class's
    inputs, L a maximum over pairs: both err optimistically, a diagnostic. Source: paper Theorem 4.8.

    Args:
      lipschitz: L of inputs to features, `complexity.lipschitz`.
      curves: by class, `complexity.covering_curve` of its inputs; not read for an absent class.

    With m = n_y everywhere the formula (term `formula`, also when invalid) is 0.5 whatever the data: it saturates
    instead of turning vacuous. Invalid when m reaches 0.9 n_y in a class, for a margin or L of 0 or below, and for
    unbalanced classes.
    """
    check(form in ("paper", "safe"), f"form is 'paper' or 'safe', not {form!r}")
    check(len(curves) == len(counts), f"{len(counts)} classes need as many covering curves, not {len(curves)}")
    gamma, counts, L = float64(pairwise), float64(counts), np.float64(lipschitz)
    present = np.flatnonzero(counts)
    pairs = counted_pairs(gamma, counts > 0)
    radius = _distance_to_plane(gamma, frame, pairs)[present] / L / (2 if form == "safe" else 1)
    known = zip(present, radius, strict=True)
    covering = np.array([covering_number_from_curve(curves[y], r) if r >= 0 else math.nan for y, r in known])
    # a curve may be that of fewer or more inputs than the training samples
    share = covering / np.minimum([len(curves[y]) for y in present], counts[present])
    few, many = smallest(counts[present]), largest(counts)
    reason = (
        margin_problem(gamma, pairs, "margin")
        or unless(0 < L < math.inf, f"the Lipschitz constant must be above 0, not {L}")
        or unless(few == many, f"the classes are unbalanced ({few:g} to {many:g} samples)")
        or unless(largest(share) < SATURATED, f"saturated: balls at {largest(share):.3g} of the inputs of a class")
    )
    terms = {
        "formula": 1 - covering.sum() / (2 * counts.sum()),
        "covering_number": covering.sum(),
        "saturation_mean": share.sum() / np.float64(present.size),
        "saturation_max": largest(share),
        "radius_min": smallest(radius),
    }
    return make_bound("accuracy", terms["formula"], terms, reason, (SAMPLE, SEPARATED, BALANCED, SUPREMUM))


@np.errstate(all="ignore")
def hoeffding_bound(
    pairwise: Pairwise, frame: Frame, max_norm: PerClass, *, num_samples: Scalar, dim: int | None = None
) -> Bound:
    """Acc >= 1 - (2d/C) sum_y [H(1, rho_y) + H(a_y - sqrt n, rho_y)], H(a, rho) = exp(-n a^2 / (8 d^2 rho^2)).

    As printed; a_y = min_y' gamma[y,y'] / ||M_y - M_y'||, n = N/C. H is even: a negative a_y - sqrt n would make the
    bound better the further it is off, so there it is invalid. Terms: `formula` the value, also when invalid; `first`
    and `second` the two sums. All summands of the first are below 1 when n > n_needed_first = max_y 8 d^2 rho_y^2
    ln(2d), of the second when n_low_second < n < n_high_second (NaN: for no n).

    No n gives both: a_y <= rho_y (Cauchy-Schwarz), so a_y - sqrt n >= 0 means n <= rho_y^2, where the first sum is at
    least 2d exp(-1/(8 d^2)) > 1. With the true rho_y the bound as printed is vacuous wherever it is valid;
    `margin_over_rho` above 1 shows that rho_y is not the true one. Source: paper Theorem 4.10.

    Args: `max_norm` is rho_y, the largest ||z|| by class; `num_samples` N, of the classes present; `dim` d, by default
    that of the frame.
    """
    gamma, d = float64(pairwise), len(frame) if dim is None else dim
    pairs = counted_pairs(gamma, ~np.isnan(gamma).all(axis=1))
    present = pairs.any(axis=1)
    rho, a = float64(max_norm)[present], _distance_to_plane(gamma, frame, pairs)[present]
    n, scale = num_samples / np.float64(len(a)), 8 * d**2 * rho**2
    reason = (
        margin_problem(gamma, pairs, "margin")
        or unless(np.all((rho > 0) & (rho < np.inf)), "the largest norm of a class is not above 0 and finite")
        or unless(
            smallest(a) >= np.sqrt(n), f"H has a negative argument: sqrt n = {np.sqrt(n):.4g} > {smallest(a):.4g}"
        )
    )
    first, second = (2 * d * np.sum(np.exp(-n * x**2 / scale)) / len(a) for x in (np.ones(len(a)), a - np.sqrt(n)))
    # sqrt(n) (a - sqrt n) > sqrt(scale ln(2d)) between two roots in sqrt(n)
    root = np.sqrt(a**2 - 4 * np.sqrt(scale * np.log(2 * d)))
    low, high = largest(((a - root) / 2) ** 2), smallest(((a + root) / 2) ** 2)
    terms = {
        "formula": 1 - first - second,
        "first": first,
        "second": second,
        "num_classes": len(a),
        "n": n,
        "argument_min": smallest(a) - np.sqrt(n),
        "margin_over_rho": largest(a / rho),
        "n_needed_first": largest(scale) * np.log(2 * d),
        "n_low_second": low if low < high else math.nan,
        "n_high_second": high if low < high else math.nan,
    }
    return make_bound("accuracy", terms["formula"], terms, reason, (SAMPLE, SEPARATED, BALANCED, SUPREMUM, UNTRAINED))


@np.errstate(all="ignore")
def cantelli_bound(margin_mean: Pairwise, margin_variance: Pairwise, priors: PerClass) -> Bound:
    """Err <= sum_y p(y) sum_y' v / (v + m^2), m and v the mean and variance of <M_y - M_y', z> over class y.

    Cantelli: P(X <= 0) = P(m - X >= m) <= v / (v + m^2) for m > 0, then a union over y'. Priors may be counts: they are
    divided by their sum over the classes with statistics, whose share is the term `prior_share`. 0 at exact collapse.

    Invalid for a mean of 0 or below: the formula is even in m and would call a pair safe that is surely wrong.
    """
    m, v, priors = float64(margin_mean), float64(margin_variance), float64(priors)
    present = (priors > 0) & ~np.isnan(m).all(axis=1)
    pairs = counted_pairs(m, present)
    variances = np.all((v[pairs] >= 0) & (v[pairs] < np.inf))
    reason = margin_problem(m, pairs, "mean margin") or unless(variances, "a variance is negative or not finite")
    chance = np.where(pairs, v / (v + m**2), 0)
    value = np.sum(priors[present] @ chance[present]) / priors[present].sum()
    share = priors[present].sum() / priors.sum()
    terms = {"min_mean": smallest(m[pairs]), "worst_pair": largest(chance[pairs]), "prior_share": share}
    return make_bound("error", value, terms, reason, (MOMENTS,))


@np.errstate(all="ignore")
def cdnv_bound(cdnv: Scalar, num_classes: int) -> Bound:
    """Nearest-class-mean rule: Err <= 4 (C-1) V, V the mean over i != j of V_ij = (v_i + v_j) / (2 D_ij^2).

    v_i = E ||z - mu_i||^2, D_ij = ||mu_i - mu_j||. A sample of class i is as near to mu_j only if X = <z - mu_i, u>,
    u = (mu_j - mu_i)/D_ij, is at least D_ij/2. X has mean 0 and variance at most v_i, so by the one-sided Chebyshev
    (Cantelli) inequality this has probability at most r/(1 + r) <= r, r = 4 v_i/D_ij^2. Summed over j and averaged over
    i this is 4 (C-1) V, as v_i/D_ij^2 averages to V over ordered pairs. 0 at exact collapse. Terms: `cantelli` keeps
    r/(1 + r), which is concave, so (C-1) 4V/(1 + 4V) holds too (Jensen) and is smaller; `galanti` 16 (C-1) V has the
    constant of Galanti, György, Hutter 2021: balls of radius D/4, which leave room for estimated means.

    Args: `cdnv` is V, `nc1_cdnv` of `collapse.neural_collapse`; `num_classes` counts the classes present.
    """
    V, others = np.float64(cdnv), num_classes - 1
    reason = unless(others > 0 and 0 <= V < math.inf, f"{V} is no CDNV of {num_classes} classes")
    terms = {"cantelli": others * 4 * V / (1 + 4 * V), "galanti": 16 * others * V}
    return make_bound("error", 4 * others * V, terms, reason, ("all classes are equally likely", MOMENTS))


def plug_in_k(frame: Frame, rho: Scalar) -> float:
    """max ||M_y - M_y'|| rho, which no |<M_y - M_y', z>| with ||z|| <= rho exceeds: K, as a plug-in."""
    return float(_distances(frame).max() * rho)


def _distance_to_plane(gamma: np.ndarray, frame: Frame, pairs: np.ndarray) -> np.ndarray:
    """min_y' gamma / ||M_y - M_y'|| by class, +inf without pairs."""
    return np.min(np.where(pairs, gamma / _distances(frame), np.inf), axis=1)


def _distances(frame: Frame) -> np.ndarray:
    columns = float64(frame).T
    return cdist(columns, columns)
