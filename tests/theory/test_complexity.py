"""Complexity against exact enumeration, brute force and closed forms."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncjax.errors import InputError
from ncjax.theory import complexity

from ..strategies import labelled_features

KEY = jax.random.key(0)


def exact_rademacher(features, bound=1.0):
    """The expectation over all 2^n sign vectors."""
    signs = np.array(list(itertools.product([-1, 1], repeat=len(features))))
    return bound / len(features) * np.linalg.norm(signs @ features, axis=1).mean()


def assert_estimates(found, exact):
    """Within 2 %: five standard errors of the draws used here."""
    assert float(found) == pytest.approx(exact, rel=0.02)


def test_monte_carlo_is_the_mean_over_all_signs():
    features = np.random.default_rng(0).standard_normal((10, 4)) + 1
    found = complexity.rademacher(KEY, features, draws=8000, bound=1.5)
    exact = exact_rademacher(features, 1.5)
    assert_estimates(found, exact)
    for wrong in (exact * 2, exact * 10 / 9, exact_rademacher(features)):  # 2/n, 1/(n-1), no B
        with pytest.raises(AssertionError):
            assert_estimates(found, wrong)


def test_closed_forms():
    orthogonal = 3 * np.eye(7)  # every sign vector gives the same norm
    assert float(complexity.rademacher(KEY, orthogonal, bound=2.0)) == pytest.approx(2 * 3 / math.sqrt(7), rel=1e-6)
    equal = np.tile([3.0, 4.0], (400, 1))
    expected = 5 * math.sqrt(2 / (math.pi * 400))
    assert float(complexity.rademacher(KEY, equal, draws=8000)) == pytest.approx(expected, rel=0.05)


@given(labelled_features())
def test_upper_bounds_are_above(data):
    features = data[0][:10]
    exact, energy = exact_rademacher(features, 2.0), float(np.sum(features**2))
    by_energy = float(complexity.rademacher_energy_bound(energy, len(features), 2.0))
    rho = np.linalg.norm(features, axis=1).max()
    by_radius = float(complexity.rademacher_radius_bound(rho, len(features), 2.0))
    assert exact <= by_energy * (1 + 1e-6) <= by_radius * (1 + 2e-6)
    assert by_energy == pytest.approx(2 / len(features) * math.sqrt(energy), rel=1e-5)
    assert by_radius == pytest.approx(2 * rho / math.sqrt(len(features)), rel=1e-5)
    # Jensen holds for the mean over all signs; few draws may exceed it by their noise
    assert float(complexity.rademacher(KEY, features, draws=256, bound=2.0)) <= 1.1 * by_energy


def test_every_class_is_its_own_sample():
    generator = np.random.default_rng(0)
    labels = np.array([0] * 4 + [2] * 9 + [3])
    features = generator.standard_normal((14, 5))
    found = np.asarray(complexity.rademacher_by_class(KEY, features, labels, 5, draws=8000, bound=2.0))
    for c in (0, 2, 3):
        assert_estimates(found[c], exact_rademacher(features[labels == c], 2.0))
    assert np.isnan(found[[1, 4]]).all()
    for bound in (complexity.rademacher_energy_bound, complexity.rademacher_radius_bound):
        assert np.isnan(bound(np.array([2.0, 0.0]), np.array([3, 0]))).tolist() == [False, True]
    assert np.isnan(complexity.rademacher(KEY, np.zeros((0, 3))))


def test_streamed_sums_finish_the_estimate():
    generator = np.random.default_rng(0)
    features = jnp.asarray(generator.standard_normal((12, 4)), jnp.float32)
    labels = jnp.asarray(generator.integers(0, 2, 12))
    filled = jnp.full((3, 4), 1e6)  # what fills up the last batch
    batches = [(features[:7], labels[:7]), (jnp.concatenate([features[7:], filled]), jnp.pad(labels[7:], (0, 3)))]
    masks = [jnp.ones(7, bool), jnp.arange(8) < 5]
    keys = jax.random.split(KEY, 2)
    add = jax.jit(complexity.sign_sums, static_argnums=(3, 4))
    sums = sum(add(k, *batch, 2, 8000, mask) for k, batch, mask in zip(keys, batches, masks, strict=True))
    assert sums.shape == (8000, 2, 4)
    counts = np.bincount(labels, minlength=2)
    found = complexity.rademacher_from_sign_sums(sums, counts, 3.0)
    for c in range(2):
        assert_estimates(found[c], exact_rademacher(np.asarray(features)[labels == c], 3.0))
    assert_estimates(complexity.rademacher_from_sign_sums(sums.sum(axis=1), 12), exact_rademacher(np.asarray(features)))


def test_sign_sums_of_many_runs_at_once():
    features = jax.random.normal(KEY, (3, 6, 4))
    labels = jnp.array([0, 1, 2, 0, 1, 2])
    stacked = jax.vmap(lambda z: complexity.sign_sums(KEY, z, labels, 3, 5))(features)
    for run in range(3):  # equal keys give equal signs, which makes runs comparable
        np.testing.assert_allclose(stacked[run], complexity.sign_sums(KEY, features[run], labels, 3, 5), rtol=1e-5)


def test_chunks_do_not_change_the_estimate(monkeypatch):
    monkeypatch.setattr(complexity, "SIGN_ENTRIES", 333)  # 3 samples at once, one left over
    assert float(complexity.rademacher(KEY, np.eye(7), draws=111)) == pytest.approx(1 / math.sqrt(7), rel=1e-6)
    equal = np.ones((100, 1))  # with the same signs in every chunk the sums would not cancel between chunks
    expected = math.sqrt(2 / (math.pi * 100))
    assert float(complexity.rademacher(KEY, equal, draws=111)) == pytest.approx(expected, rel=0.3)
    labels = np.arange(7) % 2
    by_class = complexity.rademacher_by_class(KEY, np.eye(7), labels, 2, draws=111)
    np.testing.assert_allclose(by_class, 1 / np.sqrt([4, 3]), rtol=1e-6)


def test_half_precision_features_do_not_overflow():
    features = np.full((400, 2), 60_000.0, np.float16)
    found = complexity.rademacher(KEY, features, draws=2000)
    assert found.dtype == jnp.float32
    assert float(found) == pytest.approx(60_000 * math.sqrt(2) * math.sqrt(2 / (math.pi * 400)), rel=0.05)


def loop_curve(points):
    """Greedy farthest-point traversal, one centre after another, from its definition."""
    centres, radii = [0], []
    for _ in range(len(points)):
        nearest = [min(np.linalg.norm(p - points[c]) for c in centres) for p in points]
        radii.append(max(nearest))
        centres.append(int(np.argmax(nearest)))
    return np.array(radii)


@given(labelled_features())
def test_covering_curve_is_the_greedy_traversal(data):
    points = data[0]
    curve, expected = np.asarray(complexity.covering_curve(points)), loop_curve(points)

    def assert_same(found):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    assert_same(curve)
    assert np.all(np.diff(curve) <= 0)
    assert curve[-1] == 0
    with pytest.raises(AssertionError):  # the comparison sees a curve that is one centre ahead
        assert_same(np.append(curve[1:], 0))


def brute_force_covering(points, radius):
    """Fewest closed balls around points that cover all points."""
    covered = np.linalg.norm(points[:, None] - points[None], axis=2) <= radius
    for size in range(1, len(points) + 1):
        if any(covered[list(chosen)].any(axis=0).all() for chosen in itertools.combinations(range(len(points)), size)):
            return size
    raise AssertionError("a ball around every point covers all")


def covering_of_a_line(values, radius):
    """Fewest intervals of length 2 radius, wherever they lie, that cover all values."""
    size, end = 0, -math.inf
    for value in np.sort(values):
        if value > end:
            size, end = size + 1, value + 2 * radius
    return size


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 3))
def test_covering_number_is_bracketed(seed, radius):
    points = np.random.default_rng(seed).standard_normal((7, 2)).astype(np.float32)
    found = complexity.covering_number(points, radius)
    assert brute_force_covering(points, radius) <= found <= brute_force_covering(points, radius / 2)
    line = points[:, :1]
    found = complexity.covering_number(line, radius)
    assert covering_of_a_line(line[:, 0], radius) <= found <= covering_of_a_line(line[:, 0], radius / 2)


def test_covering_numbers_in_closed_form():
    curve = complexity.covering_curve(np.eye(5))  # all at distance sqrt 2 from each other
    np.testing.assert_allclose(curve, [math.sqrt(2)] * 4 + [0], rtol=1e-6)
    assert complexity.covering_number_from_curve(curve, float(curve[0])) == 1  # balls are closed
    assert complexity.covering_number_from_curve(curve, 1.414) == 5  # saturated: every point needs its own ball
    np.testing.assert_array_equal(complexity.covering_number_from_curve(curve, np.arange(3)), [5, 5, 1])
    twice = np.tile(np.arange(3.0)[:, None], (2, 1))
    assert complexity.covering_number(twice, 0) == 3  # duplicates are at distance 0 exactly
    assert complexity.covering_number(np.full((4, 2), 1e4 / 3), 0) == 1


def test_covering_takes_images_of_any_shape_and_type():
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 3, 2)).astype(np.uint8)
    flat = complexity.covering_curve(images.reshape(20, -1).astype(np.float32))
    np.testing.assert_array_equal(complexity.covering_curve(images), flat)


def test_no_points_and_no_radius():
    assert complexity.covering_curve(np.zeros((0, 3))).shape == (0,)
    for curve, radius in ((np.zeros(0), 1.0), (np.zeros(2), -1e-9), (np.zeros(2), math.nan)):
        with pytest.raises(InputError, match="a radius of 0 or more"):
            complexity.covering_number_from_curve(curve, radius)


def test_lipschitz_is_the_largest_ratio_and_a_lower_bound():
    generator = np.random.default_rng(0)
    inputs, matrix = generator.standard_normal((9, 6)), generator.standard_normal((6, 4))
    features = inputs @ matrix
    ratios = [
        np.linalg.norm(features[a] - features[b]) / np.linalg.norm(inputs[a] - inputs[b])
        for a, b in itertools.combinations(range(9), 2)
    ]
    found = float(complexity.lipschitz(inputs, features, key=KEY, pairs=2000))  # many times all pairs
    assert found == pytest.approx(max(ratios), rel=1e-5)
    assert found < np.linalg.norm(matrix, 2)
    few = float(complexity.lipschitz(inputs, features, key=KEY, pairs=3))
    assert min(ratios) * 0.999 <= few <= found
    assert float(complexity.lipschitz(inputs, 2.5 * inputs, key=KEY)) == pytest.approx(2.5, rel=1e-5)


def test_lipschitz_traps():
    inputs = np.array([[0], [255], [255]], np.uint8)  # differences of uint8 wrap around; two inputs are identical
    found = complexity.lipschitz(inputs, np.array([[0.0], [1.0], [9.0]]), key=KEY, pairs=100)
    assert float(found) == pytest.approx(9 / 255, rel=1e-5)
    assert np.isnan(complexity.lipschitz(np.ones((4, 2, 2)), np.eye(4), key=KEY, pairs=100))
    with pytest.raises(InputError, match="at least 2 samples"):
        complexity.lipschitz(np.ones((1, 2)), np.ones((1, 2)), key=KEY)
