"""The multi-class SVM limit: closed forms, another solver, and data that nothing separates."""

import numpy as np
import pytest
import scipy.optimize

from ncjax.errors import InputError
from ncjax.theory import frames
from ncjax.theory.svm import svm_margin


def limit_by_least_squares(features, labels, num_classes):
    """The distance of 0 from the convex hull of all (e_y - e_y') z, the dual of the largest margin."""
    axes = np.eye(num_classes)
    points = [
        np.outer(z, axes[y] - axes[other]).ravel()
        for z, y in zip(features, labels, strict=True)
        for other in range(num_classes)
        if other != y
    ]
    stacked = np.vstack([np.array(points).T, np.ones(len(points))])
    weights, _ = scipy.optimize.nnls(stacked, np.append(np.zeros(stacked.shape[0] - 1), 1.0), maxiter=10**5)
    return np.linalg.norm(np.array(points).T @ weights) / weights.sum()


def smallest_margin(features, labels, frame):
    logits = features @ frame
    own = logits[np.arange(len(labels)), labels]
    return min(own[i] - logits[i, c] for i, y in enumerate(labels) for c in range(frame.shape[1]) if c != y)


@pytest.mark.parametrize(("num_classes", "dim"), [(2, 3), (3, 2), (10, 9), (10, 64)])
def test_exact_collapse(num_classes, dim):
    """The ETF itself is the limit: s sqrt(C)/(C-1), ||z|| = s."""
    frame = frames.simplex_etf(num_classes, dim)
    labels = np.repeat(np.arange(num_classes), 3)
    found = svm_margin(5.0 * frame.T[labels], labels)
    assert found.margin == pytest.approx(5 * np.sqrt(num_classes) / (num_classes - 1), rel=1e-5)
    np.testing.assert_allclose(found.frame, frame / np.sqrt(num_classes), atol=1e-4)


@pytest.mark.parametrize(
    ("num_classes", "dim", "samples", "spread", "offset"),
    [(2, 4, 10, 0.5, 0.0), (3, 4, 20, 0.5, 0.0), (5, 6, 8, 0.5, 2.0), (4, 3, 15, 0.2, 0.0), (6, 20, 10, 2.0, 0.0)],
)
def test_limit_agrees_with_another_solver(num_classes, dim, samples, spread, offset):
    generator = np.random.default_rng(num_classes)
    labels = np.repeat(np.arange(num_classes), samples)
    features = offset + 3 * generator.standard_normal((num_classes, dim))[labels]
    features += spread * generator.standard_normal(features.shape)
    found = svm_margin(features, labels)
    assert found.margin > 0.01
    assert found.margin == pytest.approx(limit_by_least_squares(features, labels, num_classes), rel=1e-4)
    assert np.linalg.norm(found.frame) == pytest.approx(1)
    assert smallest_margin(features, labels, found.frame) == pytest.approx(found.margin, rel=1e-9)


def test_no_frame_has_a_larger_margin_and_lengths_scale_it():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 5)
    features = 4 * frames.simplex_etf(4, 6).T[labels] + 0.3 * generator.standard_normal((20, 6))
    found = svm_margin(features, labels)
    for _ in range(50):
        other = found.frame + 0.1 * generator.standard_normal((6, 4))
        assert smallest_margin(features, labels, other / np.linalg.norm(other)) < found.margin
    assert svm_margin(1e-3 * features, labels).margin == pytest.approx(1e-3 * found.margin, rel=1e-4)
    assert svm_margin(1e3 * features, labels).margin == pytest.approx(1e3 * found.margin, rel=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_classes_that_nothing_separates_have_margin_zero(seed):
    generator = np.random.default_rng(seed)
    for features in (generator.standard_normal((60, 2)), np.zeros((60, 3)), np.ones((60, 3))):
        found = svm_margin(features, np.arange(60) % 3)
        assert found.margin == 0
        assert (found.frame == 0).all()


def test_absent_classes_have_no_column():
    found = svm_margin(np.array([[1.0, 0], [-1, 0], [2, 0]]), np.array([0, 2, 0]))
    assert found.margin == pytest.approx(np.sqrt(2), rel=1e-6)
    np.testing.assert_allclose(found.frame, [[np.sqrt(0.5), 0, -np.sqrt(0.5)], [0, 0, 0]], atol=1e-6)


def test_one_class_and_features_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="at least 2"):
        svm_margin(np.ones((3, 2)), np.zeros(3, int))
    with pytest.raises(InputError, match="not finite"):
        svm_margin(np.array([[np.nan], [1.0]]), np.array([0, 1]))
