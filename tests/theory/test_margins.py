"""Margins against loops and closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from ncjax.theory import frames, margins, stats

from .. import reference
from ..strategies import labelled_features


@given(labelled_features())
def test_pairwise_margins_equal_the_loop(data):
    features, labels, frame = data
    z, y, m = jnp.asarray(features, jnp.float32), jnp.asarray(labels), jnp.asarray(frame, jnp.float32)
    expected = reference.pairwise_margins(features, labels, frame)
    found = margins.pairwise_margins(z, y, m)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    from_stats = margins.pairwise_margins_from_stats(stats.class_stats(z, y, m.shape[1], frame=m))
    np.testing.assert_allclose(from_stats, expected, rtol=1e-4, atol=1e-4)
    smallest = np.nanmin(expected)
    assert margins.p_min(found) == pytest.approx(smallest, rel=1e-4, abs=1e-4)
    assert float(margins.min_margin(z, y, m)) == pytest.approx(smallest, rel=1e-4, abs=1e-4)
    assert float(margins.sample_margins(z, y, m).min()) == pytest.approx(smallest, rel=1e-4, abs=1e-4)
    two_sided = np.asarray(margins.two_sided(found))
    np.testing.assert_array_equal(two_sided, two_sided.T)


def test_exact_collapse():
    """Features of norm s along an ETF of norm alpha: every margin is alpha s C/(C-1)."""
    num_classes, s, alpha = 6, 3.0, 1.5
    frame = frames.simplex_etf(num_classes, 8, scale=alpha)
    labels = np.repeat(np.arange(num_classes), 4)
    features = s / alpha * frame.T[labels]
    found = np.asarray(margins.pairwise_margins(jnp.asarray(features), jnp.asarray(labels), jnp.asarray(frame)))
    off = ~np.eye(num_classes, dtype=bool)
    np.testing.assert_allclose(found[off], alpha * s * num_classes / (num_classes - 1), rtol=1e-5)
    assert np.isnan(np.diag(found)).all()
    scaled = margins.normalised_margins(found, frame, rho=s, lipschitz=2.0, mean_norm=s)
    np.testing.assert_allclose(scaled["collapse"][off], 1, rtol=1e-5)
    distance = alpha * np.sqrt(2 * num_classes / (num_classes - 1))
    np.testing.assert_allclose(scaled["geometric"][off], found[off] / distance, rtol=1e-6)
    np.testing.assert_allclose(scaled["radius"] * s, scaled["geometric"], rtol=1e-6)
    np.testing.assert_allclose(scaled["lipschitz"] * 2, scaled["geometric"], rtol=1e-6)


def test_a_negative_margin_is_not_clipped_and_absent_classes_are_nan():
    found = margins.pairwise_margins(jnp.array([[0.0, 1.0, 0.0]]), jnp.array([0]), jnp.eye(3))
    np.testing.assert_array_equal(found, [[np.nan, -1, 0], [np.nan] * 3, [np.nan] * 3])
    assert margins.p_min(found) == -1
    assert np.isnan(margins.p_min(np.full((2, 2), np.nan)))
