"""ClassStats: streaming equals one pass, in float32 and far from zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncjax.theory import stats

from .. import reference
from ..strategies import labelled_features


def assert_stats_close(a, b, tolerance=1e-5):
    for name in a._fields:
        if name == "means_low":
            continue
        left, right = (getattr(x, name) + x.means_low if name == "means" else getattr(x, name) for x in (a, b))
        scale = np.abs(np.where(np.isfinite(right), right, 0)).max() + 1e-12
        np.testing.assert_allclose(np.divide(left, scale), np.divide(right, scale), atol=tolerance, err_msg=name)


def in_float32(features, labels, frame):
    return jnp.asarray(features, jnp.float32), jnp.asarray(labels), jnp.asarray(frame, jnp.float32)


@given(labelled_features())
def test_statistics_are_what_they_say(data):
    features, labels, frame = data
    num_classes = frame.shape[1]
    z, y, m = in_float32(*data)
    found = stats.class_stats(z, y, num_classes, frame=m)
    np.testing.assert_array_equal(found.counts, np.bincount(labels, minlength=num_classes))
    np.testing.assert_allclose(found.means, reference.means(features, labels, num_classes), atol=1e-5)
    np.testing.assert_allclose(found.scatter / len(z), reference.within(features, labels, num_classes), atol=1e-4)
    np.testing.assert_allclose(found.class_scatter.sum(), jnp.trace(found.scatter), rtol=1e-4)
    gaps = (features @ frame)[np.arange(len(z)), labels][:, None] - features @ frame
    for c in range(num_classes):
        own = gaps[labels == c]
        np.testing.assert_allclose(found.margin_mean[c], own.mean(axis=0), atol=1e-4)
        np.testing.assert_allclose(found.margin_m2[c] / len(own), own.var(axis=0), atol=1e-3)
        np.testing.assert_allclose(found.margin_min[c], own.min(axis=0), atol=1e-4)
        assert found.max_norm[c] == pytest.approx(np.linalg.norm(features[labels == c], axis=1).max(), rel=1e-5)


@given(labelled_features(), st.floats(0, 1))
def test_merging_any_split_is_one_pass(data, where):
    z, y, m = in_float32(*data)
    num_classes, cut = m.shape[1], round(where * (len(z) - 2)) + 1
    mask = jnp.arange(len(z)) < cut
    parts = [stats.class_stats(z, y, num_classes, frame=m, mask=part) for part in (mask, ~mask)]
    whole = stats.class_stats(z, y, num_classes, frame=m)
    assert_stats_close(stats.merge(*parts), whole)
    assert_stats_close(stats.merge(*parts[::-1]), whole)


@given(labelled_features())
def test_empty_is_the_identity(data):
    z, y, m = in_float32(*data)
    found = stats.class_stats(z, y, m.shape[1], frame=m)
    nothing = stats.empty(m.shape[1], m.shape[0], with_margins=True)
    for merged in (stats.merge(nothing, found), stats.merge(found, nothing)):
        assert_stats_close(merged, found, 1e-7)
    assert_stats_close(stats.class_stats(z, y, m.shape[1], frame=m, mask=jnp.zeros(len(z), bool)), nothing, 0)


def streamed(features, labels, num_classes, chunk):
    def body(running, batch):
        return stats.merge(running, stats.class_stats(*batch, num_classes)), None

    batches = features.reshape(-1, chunk, features.shape[1]), labels.reshape(-1, chunk)
    return jax.lax.scan(body, stats.empty(num_classes, features.shape[1], with_margins=False), batches)[0]


@pytest.mark.parametrize("samples", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_float32_streaming_keeps_its_digits_far_from_zero(samples):
    """A common offset of 100 with spread 0.1: the sum of squares would lose everything."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, samples).astype(np.int32)
    features = (100 + generator.standard_normal((5, 8))[labels] + 0.1 * generator.standard_normal((samples, 8))).astype(
        np.float32
    )
    found = jax.jit(lambda z, y: streamed(z, y, 5, 200))(features, labels)
    exact = features.astype(np.float64)
    mu = reference.means(exact, labels, 5)
    deviations = exact - mu[labels]
    np.testing.assert_allclose(found.means, mu, rtol=1e-6)
    np.testing.assert_allclose(found.scatter, deviations.T @ deviations, atol=1e-3 * samples * 0.01)
    np.testing.assert_allclose(np.diag(found.scatter), np.sum(deviations**2, axis=0), rtol=1e-3)
    naive = features.astype(np.float32)
    squares = np.add.accumulate((naive[:, 0] ** 2), dtype=np.float32)[-1] / samples - naive[:, 0].mean() ** 2
    assert abs(squares - exact[:, 0].var()) > 1e-2  # what the test is about


def test_absent_class_is_defined():
    found = stats.class_stats(jnp.ones((2, 3)), jnp.array([0, 2]), 4, frame=jnp.ones((3, 4)))
    np.testing.assert_array_equal(found.counts, [1, 0, 1, 0])
    assert np.isinf(found.margin_min[1]).all()
    assert np.isfinite(found.means).all()
