"""Counted FLOPs against a count by hand."""

import pytest

from experiments.benchmarks import limits
from experiments.benchmarks.cases import make_setting


def multiply_adds_of_resnet20():
    """Of the convolutions, forward, for one 32x32x3 image."""
    stem = 32**2 * 9 * 3 * 16
    stages = 6 * 32**2 * 9 * 16**2 + 16**2 * 9 * (16 * 32 + 5 * 32**2) + 8**2 * 9 * (32 * 64 + 5 * 64**2)
    return stem + stages


def test_flops_of_a_training_step_are_those_counted_by_hand():
    expected = 3 * 2 * multiply_adds_of_resnet20()
    assert expected == pytest.approx(6 * 41e6, rel=0.02)
    flops, moved = limits.cost_per_image(make_setting("resnet20"))
    assert flops == pytest.approx(expected, rel=0.1)
    assert moved > 4 * 32**2 * 16 * 19  # every layer's output is written at least once


def test_shares():
    allowed = limits.Limits(flops_per_second=100, bytes_per_second=10, flops_per_image=2, bytes_per_image=1)
    assert allowed.shares(5) == (0.1, 0.5)


def test_measured_rates_are_rates():
    assert limits.matmul_rate("float32", size=64, repeats=1) > 0
    assert limits.bandwidth(count=1024, repeats=1) > 0
