"""Statistics of runs, pure functions of arrays: variance, power, agreement between runs, rank correlation."""

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int

from ncjax.errors import InputError

PIVOTS = 20_000  # draws behind the interval of `crossed_design`; its ends then repeat to about 0.005


def crossed_design(values: Float[np.ndarray, "f s"], *, confidence: float = 0.95) -> dict[str, float]:
    """Every frame trained with every seed: how much of the variance of a value is due to the frame.

    Two-way analysis of variance without replication, all effects random: value = mean + frame + seed + residual.
    With mean squares MS: var_residual = MS_residual, var_frame = (MS_frame - MS_residual) / S, var_seed =
    (MS_seed - MS_residual) / F, share = var_frame / (var_frame + var_seed + var_residual). The variances are unbiased
    and therefore negative at times: less spread between frames than chance alone gives. Test of no frame effect:
    f = MS_frame / MS_residual against F(F - 1, (F - 1)(S - 1)). The interval of the share is a generalised one: the
    quantiles of the share after each MS is replaced by MS dof / chi2(dof), var_frame and var_seed at least 0; it
    excludes 0 exactly when p < (1 - confidence) / 2.

    The runs share one test set: an effect is one on these images, finite as they are.
    Source: Scheffe 1959, section 7.4; Weerahandi 1993; Chiang 2001 (surrogate variables).

    Args:
      values: test accuracy, say, of frame f trained with seed s.
      confidence: of the interval.

    Returns:
      `mean, ms_frame, ms_seed, ms_residual, var_frame, var_seed, var_residual, share, share_low, share_high, f, p`,
      share, interval and test NaN when all values are equal.

    Raises:
      InputError: for fewer than two frames or seeds.
    """
    frames, seeds = values.shape
    if min(frames, seeds) < 2:
        raise InputError(f"a crossed design needs at least 2 frames and 2 seeds, this one has {frames} x {seeds}")
    dof = np.array([frames - 1, seeds - 1, (frames - 1) * (seeds - 1)])
    squares = _mean_squares(values, dof)
    components = _components(squares, frames, seeds)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = squares[0] / squares[2]
        share = components[0] / components.sum()
        pivots = squares * dof / np.random.default_rng(0).chisquare(dof, (PIVOTS, 3))
        drawn = np.maximum(_components(pivots, frames, seeds), 0)
        tail = (1 - confidence) / 2
        low, high = np.quantile(drawn[:, 0] / drawn.sum(axis=1), [tail, 1 - tail])
    found = {"mean": values.mean()}
    found |= dict(zip(("ms_frame", "ms_seed", "ms_residual"), squares, strict=True))
    found |= dict(zip(("var_frame", "var_seed", "var_residual"), components, strict=True))
    found |= {"share": share, "share_low": low, "share_high": high}
    found |= {"f": ratio, "p": scipy.stats.f.sf(ratio, dof[0], dof[2])}
    return {name: float(value) for name, value in found.items()}


def smallest_detectable_effect(
    noise: float, frames_dof: int, noise_dof: int, *, repeats: int = 1, alpha: float = 0.05, power: float = 0.8
) -> float:
    """The smallest standard deviation of a frame effect that an F test at `alpha` finds with probability `power`.

    A mean square of frames has expectation noise^2 + repeats effect^2, so power = P(F > F_crit / (1 + repeats
    effect^2 / noise^2)): central F, since frames are random. Solved: effect = noise sqrt((F_crit / F_power - 1) /
    repeats), F_power exceeded with probability `power`. Source: Scheffe 1959, section 7.2.

    Crossed design: noise^2 = var_residual, dofs F - 1 and (F - 1)(S - 1), repeats = S. A frame family against the seed
    family: noise the standard deviation over seeds, dofs R_frames - 1 and R_seeds - 1, repeats = 1: what frames add to
    the spread that seeds have. `noise` is an estimate, so the answer is one. NaN without a degree of freedom.
    """
    if min(frames_dof, noise_dof) < 1:
        return float("nan")
    critical, exceeded = scipy.stats.f.isf([alpha, power], frames_dof, noise_dof)
    return float(noise * np.sqrt((critical / exceeded - 1) / repeats))


def excess_variance(correct: Bool[np.ndarray, "r n"]) -> float:
    """Variance of accuracy over runs above what a finite test set alone would give, in squared accuracy.

    var(accuracy, ddof=1) - R/(R-1) (1/N^2) sum_i p_i (1 - p_i), p_i the share of runs right on image i: the noise of
    runs whose errors are independent given the image. Negative when runs agree on which images they fail more than
    independent ones would. NaN for a single run.
    """
    runs, images = correct.shape
    if runs < 2:
        return float("nan")
    share = correct.mean(axis=0)
    noise = runs / (runs - 1) * np.sum(share * (1 - share)) / images**2
    return float(np.var(correct.mean(axis=1), ddof=1) - noise)


def cochran_q(correct: Bool[np.ndarray, "r n"]) -> tuple[float, float]:
    """(Q, p) of Cochran's test that all runs are equally accurate, their errors independent given the image.

    Q = R (R - 1) sum_r (G_r - mean G)^2 / sum_i L_i (R - L_i), G_r images that run r gets right, L_i runs right on
    image i; chi-squared with R - 1 degrees of freedom. It rejects for seeds as for frames when runs differ: compare
    families. (0, 1) when no image is undecided, NaN for a single run. Source: Cochran 1950.
    """
    runs = len(correct)
    if runs < 2:
        return float("nan"), float("nan")
    of_run, of_image = correct.sum(axis=1), correct.sum(axis=0)
    undecided = np.sum(of_image * (runs - of_image))
    if undecided == 0:
        return 0.0, 1.0
    statistic = runs * (runs - 1) * np.sum((of_run - of_run.mean()) ** 2) / undecided
    return float(statistic), float(scipy.stats.chi2.sf(statistic, runs - 1))


def disagreement(predictions: Int[np.ndarray, "r n"]) -> float:
    """Share of images on which two runs disagree, mean over images and pairs of runs; 0 for equal runs, NaN for one.

    1 - mean_i sum_c V_ic (V_ic - 1) / (R (R - 1)), V_ic runs that predict class c on image i.
    """
    runs = len(predictions)
    if runs < 2:
        return float("nan")
    votes = _votes(predictions)
    return float(1 - np.mean(np.sum(votes * (votes - 1), axis=1)) / (runs * (runs - 1)))


def majority_vote_accuracy(predictions: Int[np.ndarray, "r n"], labels: Int[np.ndarray, " n"]) -> float:
    """Accuracy of the class that most runs predict; of classes with equal votes the lowest number counts."""
    return float(np.mean(_votes(predictions).argmax(axis=1) == labels))


def rank_correlations(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], counts: Float[np.ndarray, "b n"] | None = None
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """Spearman's rho and Kendall's tau-b of samples that hold element i `counts[b, i]` times, by default once.

    With s_ij = sign(x_i - x_j), (counts @ s)_i is minus twice the centred mid-rank of element i, so one matrix product
    ranks all samples of a bootstrap. rho is the correlation of these, tau-b the cosine of s of x and s of y over pairs;
    both NaN where x or y is constant. Source: Spearman 1904; Kendall 1945.
    """
    counts = np.ones((1, len(x))) if counts is None else counts
    signs_x, signs_y = (np.sign(values[:, None] - values) for values in (x, y))
    ranks_x, ranks_y = counts @ signs_x, counts @ signs_y
    rho = _cosine(lambda a, b: np.sum(counts * a * b, axis=1), ranks_x, ranks_y)
    tau = _cosine(lambda a, b: np.sum(counts * (counts @ (a * b)), axis=1), signs_x, signs_y)
    return rho, tau


def holm(p: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """p values corrected so that any false finding among all m has at most the probability read off, however dependent.

    The i-th smallest is multiplied by m - i + 1, then made monotone. Source: Holm 1979.
    """
    order = np.argsort(p)
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(raised, 1)
    return corrected


def permutation_p(
    candidates: list[Float[np.ndarray, " n"]], target: Float[np.ndarray, " n"], grids, permutations: int, generator
) -> Float[np.ndarray, " m"]:
    """Share of random orders of the target, the one found included, with Spearman's |rho| as large as in it.

    `grids` cut the n elements into groups, each an array (F, S) of positions whose rows are exchangeable with each
    other and whose columns are: frames x seeds, or (F, 1) for independent runs. Rows and columns are permuted whole, so
    effects of frames and seeds on both sides do not pass for a relation. Exact at any n and with ties. Source: Phipson,
    Smyth 2010 (the order found counts, so p is never 0).
    """
    order = np.tile(np.arange(len(target)), (permutations, 1))
    for grid, rows, columns in _draws(grids, lambda count: _orders(count, permutations, generator)):
        order[:, grid.ravel()] = grid[rows[:, :, None], columns[:, None, :]].reshape(permutations, -1)
    goal = _unit_ranks(target)
    orders = goal[order]
    return np.array([_share_as_large(_unit_ranks(values), goal, orders) for values in candidates])


def bootstrap_counts(grids, resamples: int, generator) -> Float[np.ndarray, "b n"]:
    """How often each element is drawn when rows and columns of each grid (see `permutation_p`) are drawn anew.

    Source: Owen 2007, the pigeonhole bootstrap; for (F, 1) the usual bootstrap within groups.
    """
    counts = np.zeros((resamples, sum(grid.size for grid in grids)))
    for grid, rows, columns in _draws(grids, lambda count: _multiplicities(count, resamples, generator)):
        counts[:, grid.ravel()] = (rows[:, :, None] * columns[:, None, :]).reshape(resamples, -1)
    return counts


def _draws(grids, draw):
    """(grid, a draw for its rows, one for its columns): grids of equal width have the same seeds, drawn alike."""
    of_columns = {}
    for grid in grids:
        rows, columns = grid.shape
        if columns not in of_columns:
            of_columns[columns] = draw(columns)
        yield grid, draw(rows), of_columns[columns]


def _orders(count: int, permutations: int, generator) -> Int[np.ndarray, "b count"]:
    return generator.permuted(np.tile(np.arange(count), (permutations, 1)), axis=1)


def _multiplicities(count: int, resamples: int, generator) -> Int[np.ndarray, "b count"]:
    return generator.multinomial(count, np.full(count, 1 / count), resamples)


def _votes(predictions) -> Int[np.ndarray, "n c"]:
    classes = int(predictions.max()) + 1
    return np.stack([np.sum(predictions == index, axis=0) for index in range(classes)], axis=1)


def _mean_squares(values, dof) -> Float[np.ndarray, "3"]:
    """Of frames, seeds and residual."""
    frames, seeds = values.shape
    shifted = values - values[0, 0]  # equal values then have squares of exactly 0, not of rounding
    centred = shifted - shifted.mean()
    of_frame, of_seed = centred.mean(axis=1, keepdims=True), centred.mean(axis=0, keepdims=True)
    residual = centred - of_frame - of_seed
    return np.array([seeds * np.sum(of_frame**2), frames * np.sum(of_seed**2), np.sum(residual**2)]) / dof


def _components(squares: Float[np.ndarray, "*n 3"], frames: int, seeds: int) -> Float[np.ndarray, "*n 3"]:
    """Variances of frame, seed and residual."""
    of_frame, of_seed, residual = np.moveaxis(squares, -1, 0)
    return np.stack([(of_frame - residual) / seeds, (of_seed - residual) / frames, residual], axis=-1)


def _cosine(product, a, b):
    with np.errstate(divide="ignore", invalid="ignore"):
        return product(a, b) / np.sqrt(product(a, a) * product(b, b))


def _share_as_large(ranks, goal, orders) -> float:
    # equal correlations must not be told apart by rounding
    reached = np.abs(orders @ ranks) >= np.abs(goal @ ranks) - 1e-9
    return (1 + reached.sum()) / (1 + len(orders))


def _unit_ranks(values) -> Float[np.ndarray, " n"]:
    """Centred mid-ranks, scaled so that a dot product is a correlation."""
    ranks = np.sign(values[:, None] - values).sum(axis=1)
    return ranks / np.linalg.norm(ranks)
