"""Statistics against hand calculation, scipy and simulated data with known answers."""

import numpy as np
import pytest
import scipy.stats

from ncjax.analysis.statistics import (
    bootstrap_counts,
    cochran_q,
    crossed_design,
    disagreement,
    excess_variance,
    holm,
    majority_vote_accuracy,
    permutation_p,
    rank_correlations,
    smallest_detectable_effect,
)
from ncjax.errors import InputError


def crossed(generator, frame, seed, residual, frames=6, seeds=5):
    """One table of accuracies with effects of these standard deviations."""
    effects = frame * generator.standard_normal((frames, 1)) + seed * generator.standard_normal((1, seeds))
    return 0.94 + effects + residual * generator.standard_normal((frames, seeds))


def binomial_slack(rate, count):
    """Three standard errors of a share."""
    return 3 * np.sqrt(rate * (1 - rate) / count)


def test_crossed_design_by_hand():
    """Rows 1 2 3, 2 3 7: row means 2 and 4, column means 1.5, 2.5, 5, mean 3; residuals +-0.5, +-0.5, +-1."""
    found = crossed_design(np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 7.0]]))
    assert found["mean"] == 3
    assert found["ms_frame"] == pytest.approx(6)
    assert found["ms_seed"] == pytest.approx(13 / 2)
    assert found["ms_residual"] == pytest.approx(3 / 2)
    assert found["var_frame"] == pytest.approx((6 - 1.5) / 3)
    assert found["var_seed"] == pytest.approx((6.5 - 1.5) / 2)
    assert found["share"] == pytest.approx(1.5 / (1.5 + 2.5 + 1.5))
    assert found["f"] == pytest.approx(4)
    assert found["p"] == pytest.approx(scipy.stats.f.sf(4, 1, 2))


@pytest.mark.parametrize("seed", [0.0, 0.004])
def test_seed_noise_is_called_a_frame_effect_in_five_percent(seed):
    generator = np.random.default_rng(0)
    called = [crossed_design(crossed(generator, 0, seed, 0.004))["p"] < 0.05 for _ in range(500)]
    assert abs(np.mean(called) - 0.05) < binomial_slack(0.05, 500)


@pytest.mark.parametrize("effects", [(0.003, 0.002, 0.004), (0.006, 0.0, 0.003), (0.0, 0.002, 0.004)])
def test_planted_frame_effect_is_recovered_and_its_share_covered(effects):
    generator = np.random.default_rng(1)
    variances = np.square(effects)
    found = [crossed_design(crossed(generator, *effects)) for _ in range(400)]
    for name, planted in zip(("var_frame", "var_seed", "var_residual"), variances, strict=True):
        estimates = np.array([design[name] for design in found])
        assert abs(estimates.mean() - planted) < 3.5 * estimates.std() / np.sqrt(400)
    share = variances[0] / variances.sum()
    covered = np.mean([design["share_low"] <= share <= design["share_high"] for design in found])
    assert covered > 0.95 - binomial_slack(0.05, 400)
    assert covered < 0.99  # 0.975 where there is no effect at all


def test_interval_excludes_zero_exactly_when_the_test_rejects():
    generator = np.random.default_rng(2)
    designs = [crossed_design(crossed(generator, 0.003, 0.002, 0.004)) for _ in range(100)]
    clear = [design for design in designs if abs(design["p"] - 0.025) > 0.005]  # beyond the noise of the pivots
    assert all((design["share_low"] > 0) == (design["p"] < 0.025) for design in clear)
    assert 10 < sum(design["p"] < 0.025 for design in clear) < len(clear)


def test_equal_values_have_no_share_and_small_tables_are_refused():
    found = crossed_design(np.full((6, 5), 0.9398872886662493))
    assert found["ms_frame"] == found["ms_residual"] == 0
    assert np.isnan([found["share"], found["share_low"], found["p"]]).all()
    with pytest.raises(InputError, match="this one has 1 x 5"):
        crossed_design(np.ones((1, 5)))


def test_power_is_as_stated_at_the_smallest_detectable_effect_of_a_crossed_design():
    generator = np.random.default_rng(3)
    effect = smallest_detectable_effect(0.004, 5, 20, repeats=5)
    squares = scipy.stats.f.isf(0.05, 5, 20)
    tables = np.stack([crossed(generator, effect, 0.003, 0.004) for _ in range(2_000)])
    between = 5 * tables.mean(axis=2).var(axis=1, ddof=1)
    rest = tables - tables.mean(axis=2, keepdims=True) - tables.mean(axis=1, keepdims=True)
    residual = np.sum((rest + tables.mean(axis=(1, 2), keepdims=True)) ** 2, axis=(1, 2)) / 20
    assert abs(np.mean(between / residual > squares) - 0.8) < binomial_slack(0.8, 2_000)


def test_power_is_as_stated_for_a_family_against_seeds():
    generator = np.random.default_rng(4)
    effect = smallest_detectable_effect(0.005, 11, 9)
    frames = np.hypot(effect, 0.005) * generator.standard_normal((4_000, 12))
    seeds = 0.005 * generator.standard_normal((4_000, 10))
    ratio = frames.var(axis=1, ddof=1) / seeds.var(axis=1, ddof=1)
    assert abs(np.mean(ratio > scipy.stats.f.isf(0.05, 11, 9)) - 0.8) < binomial_slack(0.8, 4_000)
    assert np.isnan(smallest_detectable_effect(0.005, 11, 0))


def test_more_frames_or_seeds_detect_less():
    designs = (6, 5), (12, 5), (12, 9)
    effects = [smallest_detectable_effect(1, f - 1, (f - 1) * (s - 1), repeats=s) for f, s in designs]
    assert effects == sorted(effects, reverse=True)


def test_excess_variance_of_independent_errors_is_zero_on_average():
    generator = np.random.default_rng(0)
    difficulty = generator.beta(8, 1, size=500)
    found = [excess_variance(generator.random((20, 500)) < difficulty) for _ in range(300)]
    standard_error = np.std(found) / np.sqrt(300)
    assert abs(np.mean(found)) < 3 * standard_error
    assert standard_error < 0.1 * np.mean(difficulty * (1 - difficulty)) / 500


def test_excess_variance_recovers_a_planted_spread():
    generator = np.random.default_rng(1)
    planted = 0.02
    found = []
    for _ in range(200):
        rates = 0.8 + planted * generator.standard_normal((20, 1))
        found.append(excess_variance(generator.random((20, 2000)) < rates))
    assert np.mean(found) == pytest.approx(planted**2, rel=0.1)


def test_equal_runs_have_spread_exactly_zero_and_no_excess():
    correct = np.tile(np.arange(100) % 5 > 0, (4, 1))
    assert np.std(correct.mean(axis=1)) == 0
    assert excess_variance(correct) == 0  # no image is undecided
    assert cochran_q(correct) == (0, 1)
    assert np.isnan(excess_variance(correct[:1]))
    assert np.isnan(cochran_q(correct[:1])).all()


def test_cochran_q_by_hand():
    """Right answers 4, 2, 1 of three runs; images decided by 3, 2, 1, 1, 0: Q = 3 x 2 x (14 / 3) / (2 + 2 + 2)."""
    correct = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]], bool)
    statistic, p = cochran_q(correct)
    assert statistic == pytest.approx(14 / 3)
    assert p == pytest.approx(np.exp(-7 / 3))  # chi-squared with two degrees of freedom


def test_cochran_q_of_two_runs_is_mcnemar():
    correct = np.random.default_rng(0).random((2, 300)) < [[0.9], [0.85]]
    only_one, only_other = np.sum(correct[0] & ~correct[1]), np.sum(correct[1] & ~correct[0])
    assert cochran_q(correct)[0] == pytest.approx((only_one - only_other) ** 2 / (only_one + only_other))


def test_cochran_q_rejects_equal_runs_in_five_percent():
    generator = np.random.default_rng(5)
    difficulty = generator.beta(8, 1, size=400)
    found = np.array([cochran_q(generator.random((10, 400)) < difficulty) for _ in range(1_000)])
    assert abs(np.mean(found[:, 1] < 0.05) - 0.05) < binomial_slack(0.05, 1_000)
    assert found[:, 0].mean() == pytest.approx(9, rel=0.05)


def test_disagreement_and_vote_by_hand():
    predictions = np.array([[0, 1, 2, 2], [0, 1, 1, 3], [0, 2, 0, 3]], np.uint16)
    # pairs that differ: none of three, two, all three, two
    assert disagreement(predictions) == pytest.approx((0 + 2 + 3 + 2) / 3 / 4)
    # votes: 0, 1, a tie of 0, 1 and 2 that the lowest wins, 3
    assert majority_vote_accuracy(predictions, np.array([0, 1, 0, 3])) == 1
    assert majority_vote_accuracy(predictions, np.array([0, 1, 2, 3])) == 0.75
    assert np.isnan(disagreement(predictions[:1]))


def test_disagreement_equals_a_loop_over_pairs():
    predictions = np.random.default_rng(6).integers(0, 4, (7, 50))
    pairs = [np.mean(predictions[i] != predictions[j]) for i in range(7) for j in range(i)]
    assert disagreement(predictions) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("decimals", [0, 8])
def test_rank_correlations_equal_scipy_with_and_without_ties(decimals):
    generator = np.random.default_rng(7)
    x = generator.standard_normal(20)
    y = np.round(x + generator.standard_normal(20), decimals)
    x = np.round(x, decimals)
    rho, tau = rank_correlations(x, y)
    assert rho[0] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert tau[0] == pytest.approx(scipy.stats.kendalltau(x, y).statistic)


def test_counts_are_repeated_elements():
    generator = np.random.default_rng(8)
    x, y = generator.standard_normal((2, 12))
    counts = bootstrap_counts([np.arange(12)[:, None]], 5, generator)
    rho, tau = rank_correlations(x, y, counts)
    for sample in range(5):
        drawn = np.repeat(np.arange(12), counts[sample].astype(int))
        assert rho[sample] == pytest.approx(scipy.stats.spearmanr(x[drawn], y[drawn]).statistic)
        assert tau[sample] == pytest.approx(scipy.stats.kendalltau(x[drawn], y[drawn]).statistic)


def test_constant_values_have_no_rank_correlation():
    assert np.isnan(rank_correlations(np.ones(6), np.arange(6.0))).all()


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.9, 0.6])), [1, 1])


def test_permutation_p_of_five_runs_in_one_order_is_two_in_120():
    """The t approximation would say 0."""
    x = np.arange(5.0)
    found = permutation_p([x, -x], x**3, [np.arange(5)[:, None]], 20_000, np.random.default_rng(0))
    np.testing.assert_allclose(found, 2 / 120, rtol=0.15)


def test_bootstrap_keeps_groups_and_whole_rows_and_columns():
    grids = [np.arange(12).reshape(4, 3), 12 + np.arange(6).reshape(2, 3), 18 + np.arange(5)[:, None]]
    counts = bootstrap_counts(grids, 20, np.random.default_rng(0))
    assert (counts[:, 18:].sum(axis=1) == 5).all()
    first, second = counts[:, :12].reshape(20, 4, 3), counts[:, 12:18].reshape(20, 2, 3)
    np.testing.assert_array_equal(first.sum(axis=(1, 2)), 12)
    np.testing.assert_array_equal(first * 12, first.sum(axis=2, keepdims=True) * first.sum(axis=1, keepdims=True))
    # the seeds are the same in both grids, so they are drawn alike
    np.testing.assert_array_equal(first.sum(axis=1) / 4, second.sum(axis=1) / 2)


@pytest.mark.parametrize(("count", "rho"), [(12, 0.5), (30, 0.8)])
def test_bootstrap_intervals_cover(count, rho):
    """Population values of a bivariate normal: 6/pi asin(rho/2) and 2/pi asin(rho)."""
    generator = np.random.default_rng(9)
    planted = 6 / np.pi * np.arcsin(rho / 2), 2 / np.pi * np.arcsin(rho)
    covered = np.zeros(2)
    for _ in range(300):
        x, y = generator.multivariate_normal([0, 0], [[1, rho], [rho, 1]], count).T
        counts = bootstrap_counts([np.arange(count)[:, None]], 500, generator)
        for index, sample in enumerate(rank_correlations(x, y, counts)):
            low, high = np.nanquantile(sample, [0.025, 0.975])
            covered[index] += low <= planted[index] <= high
    assert (covered / 300 > 0.95 - binomial_slack(0.05, 300)).all()
