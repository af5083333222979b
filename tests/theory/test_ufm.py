"""The unconstrained feature model: optima against another solver and closed forms, flow to the maximum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from ncjax.theory import frames, ufm
from ncjax.theory.collapse import neural_collapse, scale_floor
from ncjax.theory.stats import class_stats


def rotated(num_classes, dim, count, seed=0):
    """Rotations of one simplex ETF, (K, D, C)."""
    base = frames.simplex_etf(num_classes, dim)
    keys = jax.random.split(jax.random.key(seed), count)
    return np.stack([frames.rotate(base, frames.random_rotation(key, dim)) for key in keys]).astype(np.float32)


def solved_by_slsqp(frame, norm):
    """Mean cross-entropy over classes at z >= 0, ||z|| <= norm, and the smallest of the best margins."""
    dim, num_classes = frame.shape
    ball = {"type": "ineq", "fun": lambda v: norm**2 - v[:dim] @ v[:dim]}
    losses, margins = [], []
    for y in range(num_classes):
        gaps = np.delete(frame[:, [y]] - frame, y, axis=1)
        start = np.maximum(frame[:, y], 0)
        bounds = [(0, None)] * dim
        found = scipy.optimize.minimize(
            lambda z, gaps=gaps: scipy.special.logsumexp(-gaps.T @ z),
            start,
            bounds=bounds,
            constraints=[ball],
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        losses.append(np.log1p(np.exp(found.fun)))
        apart = {"type": "ineq", "fun": lambda v, gaps=gaps: gaps.T @ v[:dim] - v[dim]}
        found = scipy.optimize.minimize(
            lambda v: -v[dim],
            np.append(found.x, 0),
            bounds=[*bounds, (None, None)],
            constraints=[ball, apart],
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        margins.append(-found.fun)
    return np.mean(losses), min(margins)


@pytest.mark.parametrize(("num_classes", "dim", "norm"), [(3, 5, 4.0), (4, 6, 8.0), (2, 3, 1.0), (6, 3, 5.0)])
def test_nonnegative_optimum_agrees_with_another_solver(num_classes, dim, norm):
    frame = np.random.default_rng(num_classes).standard_normal((dim, num_classes)).astype(np.float32)
    found = ufm.nonnegative_optimum(frame[None], norm=norm)
    loss, margin = solved_by_slsqp(frame.astype(np.float64), norm)
    assert float(found.loss[0]) == pytest.approx(loss, rel=1e-4, abs=1e-6)
    resolution = norm * np.log(num_classes) / ufm.MARGIN_SHARPNESS * 2 * np.linalg.norm(frame, axis=0).max()
    assert margin - resolution - 1e-4 < float(found.best_p_min[0]) < margin + 1e-4


def test_optimum_is_feasible_and_certified():
    given = rotated(10, 64, 20)
    found = ufm.nonnegative_optimum(given, norm=8.0)
    assert float(found.features.min()) >= 0
    assert float(jnp.linalg.norm(found.features, axis=2).max()) <= 8 * (1 + 1e-6)
    assert float(jnp.abs(found.gap).max()) < 1e-6
    assert (np.asarray(found.best_p_min) > np.asarray(found.p_min)).all()
    # the certificate sees what stopped early: the loss there is above the optimum, by no more than it says
    early = ufm.nonnegative_optimum(given, norm=8.0, steps=2)
    above = np.asarray(early.loss - found.loss)
    assert (above > 1e-6).all()
    assert (above <= np.asarray(early.gap)).all()


@pytest.mark.parametrize(("num_classes", "dim", "norm"), [(2, 2, 3.0), (10, 64, 8.0), (100, 128, 11.39)])
def test_free_features_reach_the_closed_form(num_classes, dim, norm):
    found = ufm.free_optimum(rotated(num_classes, dim, 2), norm=norm)
    np.testing.assert_allclose(found.loss, scale_floor(num_classes, 1.0, norm), rtol=1e-4)
    np.testing.assert_allclose(found.p_min, norm * num_classes / (num_classes - 1), rtol=1e-5)
    np.testing.assert_allclose(found.global_mean_energy, 0, atol=1e-6)


def test_a_class_that_no_nonnegative_feature_reaches_stays_at_zero():
    found = ufm.nonnegative_optimum(np.array([[[1, -1]], [[2, 0]]]), norm=3.0)
    reached = np.log1p(np.exp(-6))
    np.testing.assert_allclose(found.loss, (reached + np.log(2)) / 2, rtol=1e-5)
    np.testing.assert_allclose(found.p_min, 0, atol=1e-6)
    np.testing.assert_allclose(found.best_p_min, 0, atol=1e-6)


def test_no_frame_beats_the_floor_of_the_simplex_etf():
    given = np.random.default_rng(0).standard_normal((20, 6, 4)).astype(np.float32)
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    assert (np.asarray(ufm.free_optimum(given, norm=5.0).loss) > scale_floor(4, 1.0, 5.0)).all()


def test_permutations_change_nothing_and_rotations_do():
    frame = rotated(5, 8, 1)[0]
    order, axes = np.random.default_rng(0).permutation(5), np.random.default_rng(1).permutation(8)
    turned = frames.random_rotation(jax.random.key(3), 8).astype(np.float32) @ frame
    found = ufm.nonnegative_optimum(np.stack([frame, frame[:, order], frame[axes], turned]), norm=6.0)
    np.testing.assert_allclose(found.loss[1:3], found.loss[0], rtol=1e-5)
    np.testing.assert_allclose(found.best_p_min[1:3], found.best_p_min[0], rtol=1e-4)
    assert abs(float(found.loss[3] / found.loss[0]) - 1) > 0.01
    free = ufm.free_optimum(np.stack([frame, turned]), norm=6.0)
    np.testing.assert_allclose(free.loss[1], free.loss[0], rtol=1e-4)


def test_numbers_of_relu_features():
    """Norm 8, 10 classes: CE 0.0012 free, about 0.025 non-negative, and rotations matter less in many dimensions."""
    small, large = (
        ufm.nonnegative_optimum(rotated(10, dim, count), norm=8.0, steps=60) for dim, count in ((64, 60), (512, 12))
    )
    assert float(small.loss.mean()) == pytest.approx(0.025, abs=0.003)
    assert float(small.p_min.mean()) == pytest.approx(4.4, abs=0.4)
    assert float(small.best_p_min.mean()) == pytest.approx(4.6, abs=0.3)
    spread = [float(found.loss.std() / found.loss.mean()) for found in (small, large)]
    assert 0.12 < spread[0] < 0.3
    assert spread[1] < 0.06
    assert 0.28 < float(small.global_mean_energy.min()) < float(small.global_mean_energy.max()) < 0.42


@pytest.fixture(scope="module")
def flow():
    return ufm.gradient_flow(jax.random.key(0), 4, 6, 5)


def test_gradient_flow_loses_loss_and_gains_margin(flow):
    assert (np.diff(flow.log_loss) < 0).all()
    assert (np.diff(flow.log_time) > 0).all()
    separated = np.asarray(flow.p_min) > 0
    assert separated[-1]
    assert separated[np.argmax(separated) :].all()
    assert (np.diff(flow.normalised_margin)[np.argmax(separated) :] > -1e-6).all()
    # p_min goes to infinity like log t, and so does -log CE
    late = len(flow.p_min) // 2
    slope = np.polyfit(flow.log_time[late:], flow.p_min[late:], 1)[0]
    assert slope == pytest.approx(1, abs=0.01)


def test_gradient_flow_ends_in_neural_collapse_at_the_largest_margin(flow):
    maximum = np.sqrt(4) / 3
    assert maximum * 0.999 < float(flow.normalised_margin[-1]) < maximum * (1 + 1e-6)
    found = neural_collapse(class_stats(flow.features, flow.labels, 4), flow.frame)
    for key in ("nc1_quotient", "nc2_etf_error_means", "nc2_etf_error_frame", "nc3_duality_error", "nc3_alignment"):
        assert 0 <= found[key] < 5e-3, key


def test_normalised_margin_of_exact_collapse_is_the_maximum_over_random_frames_and_features():
    generator = np.random.default_rng(0)
    own = np.eye(4, dtype=bool)
    for _ in range(200):
        frame = frames.simplex_etf(4, 5) + generator.choice([0.05, 1.0]) * generator.standard_normal((5, 4))
        features = frame.T + 0.1 * generator.standard_normal((4, 5))
        logits = features @ frame
        p_min = np.where(own, np.inf, np.diag(logits)[:, None] - logits).min()
        assert p_min < np.sqrt(4) / 3 * np.linalg.norm(frame) * np.linalg.norm(features, axis=1).max()


def test_gradient_flow_is_a_flow_and_not_its_steps():
    """A fourth of the step size draws the same curves, and M M^T - Z^T Z is conserved."""
    coarse, fine = (
        ufm.gradient_flow(jax.random.key(1), 3, 4, 2, steps=steps, step_size=size)
        for steps, size in ((800, 0.5), (3200, 0.125))
    )
    times = np.linspace(2, float(coarse.log_time[-1]) - 1, 50)
    for name in ("p_min", "log_loss"):
        drawn = [np.interp(times, np.asarray(f.log_time), np.asarray(getattr(f, name))) for f in (coarse, fine)]
        np.testing.assert_allclose(*drawn, rtol=0.01, atol=0.05, err_msg=name)
    drawn = [np.interp(times, np.asarray(f.log_time), np.asarray(f.normalised_margin)) for f in (coarse, fine)]
    np.testing.assert_allclose(*drawn, atol=3e-3)
    first = ufm.gradient_flow(jax.random.key(1), 3, 4, 2, steps=1, step_size=1e-6)
    balance = [f.frame @ f.frame.T - f.features.T @ f.features for f in (first, fine)]
    np.testing.assert_allclose(balance[1], balance[0], atol=2e-3)
    assert float(jnp.abs(fine.frame @ fine.frame.T).max()) > 50


def test_gradient_flow_with_more_classes_than_dimensions_separates_them():
    found = ufm.gradient_flow(jax.random.key(0), 7, 3, 2, steps=1000)
    assert 0 < float(found.normalised_margin[-1]) < np.sqrt(7) / 6
    assert float(found.p_min[-1]) > 20
