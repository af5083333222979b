"""Family statistics against values known beforehand."""

import numpy as np
import pytest

from ncjax.analysis.families import excess_variance, last_epoch_below, terminal_phase_start


def test_terminal_phase_starts_at_the_first_perfect_evaluation():
    epochs = np.array([1, 2, 5, 9])
    accuracy = np.array([[0.5, 1.0, 0.9, 1.0], [0.9, 0.99, 1.0, 1.0], [0.1, 0.2, 0.3, 0.4]])
    np.testing.assert_array_equal(terminal_phase_start(epochs, accuracy), [2, 5, np.nan])
    np.testing.assert_array_equal(terminal_phase_start(epochs, accuracy, 0.9), [2, 1, np.nan])


def test_last_epoch_below_is_the_last_imperfect_evaluation():
    epochs = np.array([1, 2, 5, 9])
    accuracy = np.array([[0.5, 1.0, 0.9, 1.0], [1.0, 1.0, 1.0, 1.0], [0.1, 0.2, 0.3, 0.4]])
    np.testing.assert_array_equal(last_epoch_below(epochs, accuracy), [5, 0, 9])


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


def test_equal_runs_have_spread_exactly_zero_and_negative_excess():
    correct = np.tile(np.arange(100) % 5 > 0, (4, 1))
    assert np.std(correct.mean(axis=1)) == 0
    assert excess_variance(correct) == 0  # no image is undecided
    assert np.isnan(excess_variance(correct[:1]))
