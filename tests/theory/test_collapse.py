"""Neural-collapse metrics: closed forms, invariances, parity with loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from ncjax.theory import frames
from ncjax.theory.collapse import neural_collapse, normalised_collapse, scale_floor
from ncjax.theory.stats import class_stats

from .. import reference
from ..strategies import labelled_features


def measured(features, labels, frame, dtype=jnp.float32, **options):
    z, m = jnp.asarray(features, dtype), jnp.asarray(frame, dtype)
    return neural_collapse(class_stats(z, jnp.asarray(labels), frame.shape[1], frame=m), frame, **options)


def assert_metrics_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=tolerance, abs=tolerance), key


@given(labelled_features())
def test_parity_with_the_reference(data):
    # C > D leaves S_B singular in no direction of H, where the reference's pinv is the same
    assert_metrics_close(measured(*data), reference.neural_collapse(*data), 1e-4)


def test_parity_in_float64_to_nine_digits():
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 5
    features, frame = 3 + generator.standard_normal((200, 8)), generator.standard_normal((8, 5))
    with jax.enable_x64(True):
        ood_mean = generator.standard_normal(8)
        found = measured(features, labels, frame, jnp.float64, extra=True, ood_mean=ood_mean)
        found |= normalised_collapse(features, labels, 5)
    expected = reference.neural_collapse(features, labels, frame)
    expected |= reference.extra_metrics(features, labels, frame, ood_mean)
    expected |= reference.normalised_collapse(features, labels, 5)
    assert_metrics_close(found, expected, 1e-9)
    for key in expected:  # the comparison sees a planted error of a millionth
        with pytest.raises(AssertionError):
            assert_metrics_close(found, expected | {key: expected[key] * (1 + 1e-6) + 1e-6}, 1e-9)


@given(labelled_features())
def test_parity_of_the_extra_metrics(data):
    features, labels, frame = data
    ood_mean = np.linspace(-1, 2, features.shape[1])
    found = measured(*data, extra=True, ood_mean=ood_mean)
    expected = reference.neural_collapse(*data) | reference.extra_metrics(*data, ood_mean)
    assert_metrics_close(found, expected, 2e-3)
    normalised = normalised_collapse(features.astype(np.float32), labels, frame.shape[1])
    assert_metrics_close(normalised, reference.normalised_collapse(features, labels, frame.shape[1]), 2e-3)


def collapsed(num_classes, dim, s, sigma):
    """Means of norm s along an ETF, samples at mean +- sigma sqrt(D) e_i: S_W = sigma^2 I exactly."""
    frame = frames.simplex_etf(num_classes, dim)
    offsets = sigma * np.sqrt(dim) * np.concatenate([np.eye(dim), -np.eye(dim)])
    features = (s * frame.T[:, None] + offsets[None]).reshape(-1, dim)
    return features, np.repeat(np.arange(num_classes), 2 * dim), frame


def test_nc1_closed_form():
    num_classes, dim, s, sigma = 5, 7, 4.0, 0.3
    found = measured(*collapsed(num_classes, dim, s, sigma))
    assert found["nc1_pinv"] == pytest.approx(sigma**2 * (num_classes - 1) ** 2 / (num_classes * s**2), rel=1e-4)
    assert found["nc1_quotient"] == pytest.approx(dim * sigma**2 / s**2, rel=1e-4)
    between = 2 * s**2 * num_classes / (num_classes - 1)
    assert found["nc1_cdnv"] == pytest.approx(dim * sigma**2 / between, rel=1e-4)


@pytest.mark.parametrize("num_classes", [2, 10])
def test_everything_vanishes_at_exact_collapse(num_classes):
    features, labels, frame = collapsed(num_classes, 12, 8.0, 0.0)
    found = measured(features, labels, frame)
    vanishing = [key for key in found if key.startswith("nc")]
    assert len(vanishing) == 13
    for key in vanishing:
        assert 0 <= found[key] < 1e-5, key
    assert found["loss_floor"] == pytest.approx(scale_floor(num_classes, 1.0, 8.0), rel=1e-5)
    assert found["global_mean_energy"] == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_extra_metrics_at_exact_collapse(num_classes):
    features, labels, frame = collapsed(num_classes, 12, 8.0, 0.0)
    found = measured(features, labels, frame, extra=True, ood_mean=np.eye(12)[11])
    distance = np.sqrt(2 * num_classes / (num_classes - 1))
    for columns in ("means", "frame"):
        assert found[f"nc2_one_vs_rest_{columns}"] == pytest.approx(num_classes / (num_classes - 1), rel=1e-5)
        for key, value in (("distance", distance), ("log_energy", -np.log(distance)), ("riesz_energy", 1 / distance)):
            assert found[f"nc2_{key}_{columns}"] == pytest.approx(value, rel=1e-5)
            assert 0 <= found[f"nc2_{key}_variance_{columns}"] < 1e-10
    assert 0 <= found["nc3_uniformity"] < 1e-10
    assert found["nc5_ood_deviation"] == pytest.approx(0, abs=1e-6)  # axis 11 is orthogonal to the frame
    assert measured(features, labels, frame, ood_mean=features[0])["nc5_ood_deviation"] == pytest.approx(
        (1 + (num_classes - 1) / (num_classes - 1)) / num_classes, rel=1e-5
    )


def test_no_frame_has_a_larger_one_vs_rest_distance_or_less_energy_than_the_simplex_etf():
    generator = np.random.default_rng(0)
    features, labels, etf = collapsed(5, 7, 4.0, 0.3)
    best = measured(features, labels, etf, extra=True)
    for _ in range(20):
        other = measured(features, labels, generator.standard_normal((7, 5)), extra=True)
        assert other["nc2_one_vs_rest_frame"] < best["nc2_one_vs_rest_frame"]
        assert other["nc2_log_energy_frame"] > best["nc2_log_energy_frame"]
        assert other["nc2_riesz_energy_frame"] > best["nc2_riesz_energy_frame"]


def test_two_equal_directions_are_at_distance_zero_with_infinite_energy():
    features, labels, _ = collapsed(3, 4, 1.0, 0.1)
    found = measured(features, labels, np.eye(4)[:, [0, 1, 0]] * [1, 1, 2], extra=True)
    assert found["nc2_one_vs_rest_frame"] == pytest.approx(0, abs=1e-7)
    assert found["nc2_riesz_energy_frame"] == np.inf


def test_normalised_collapse_forgives_lengths_only():
    features, labels, frame = collapsed(4, 6, 3.0, 0.0)
    lengths = np.random.default_rng(0).uniform(0.5, 5, len(features))[:, None]
    assert measured(features * lengths, labels, frame)["nc1_quotient"] > 0.01
    for value in normalised_collapse((features * lengths).astype(np.float32), labels, 4).values():
        assert 0 <= value < 1e-8
    zero = np.concatenate([features, np.zeros((1, 6))]).astype(np.float32)
    assert np.isfinite(list(normalised_collapse(zero, np.append(labels, 0), 4).values())).all()


@pytest.mark.parametrize(("num_classes", "floor"), [(10, 1.377), (100, 3.612)])
def test_unit_features_with_a_unit_frame_cannot_reach_zero_loss(num_classes, floor):
    assert scale_floor(num_classes, 1.0, 1.0) == pytest.approx(floor, abs=1e-3)


@given(labelled_features())
def test_metrics_do_not_change_under_what_should_not_change_them(data):
    features, labels, frame = data
    before = measured(*data, extra=True)
    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.standard_normal((features.shape[1],) * 2))[0]
    order = generator.permutation(len(features))
    renamed = generator.permutation(frame.shape[1])
    for changed in (
        (features @ rotation.T, labels, rotation @ frame),
        (features[order], labels[order], frame),
        (np.tile(features, (2, 1)), np.tile(labels, 2), frame),
        (features, np.argsort(renamed)[labels].astype(np.int32), frame[:, renamed]),
    ):
        assert_metrics_close(measured(*changed, extra=True), before, 2e-3)


def test_nc1_never_turns_negative_however_collapsed():
    """Far-off, tightly collapsed float32 features: a float32 pinv inverts rounding noise here."""
    generator = np.random.default_rng(0)
    frame = frames.simplex_etf(10, 64)
    labels = np.arange(2000) % 10
    for noise in (1e-2, 1e-4, 1e-6, 0.0):
        features = 50 + 5 * frame.T[labels] + noise * generator.standard_normal((2000, 64))
        found = measured(features, labels, frame)
        assert found["nc1_pinv"] >= 0
        if noise == 1e-2:
            expected = reference.neural_collapse(features, labels, frame)["nc1_pinv"]
            assert found["nc1_pinv"] == pytest.approx(expected, rel=0.05)


def test_absent_classes_are_left_out():
    features, labels, frame = collapsed(5, 7, 4.0, 0.3)
    kept = labels != 3
    found = measured(features[kept], labels[kept], frame, extra=True)
    others = np.array([0, 1, 2, 4])
    renumbered = np.searchsorted(others, labels[kept]).astype(np.int32)
    assert_metrics_close(found, measured(features[kept], renumbered, frame[:, others], extra=True), 1e-6)


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
def test_one_class_or_zero_features_give_nan_and_no_exception(labels):
    for features in (np.random.default_rng(0).standard_normal((3, 4)), np.zeros((3, 4))):
        found = measured(features, np.array(labels), frames.simplex_etf(3, 4), extra=True)
        assert np.isnan(found["nc1_pinv"])
        assert np.isnan(found["nc2_one_vs_rest_means"])
        assert np.isnan(found["nc2_distance_means"])
        assert np.isnan(list(normalised_collapse(features.astype(np.float32), np.array(labels), 3).values())).all()
        assert np.isnan(found["nc2_etf_error_means"])


def test_more_classes_than_dimensions():
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 6
    features, frame = (
        generator.standard_normal((6, 3))[labels] + 0.1 * generator.standard_normal((120, 3)),
        generator.standard_normal((3, 6)),
    )
    assert_metrics_close(measured(features, labels, frame), reference.neural_collapse(features, labels, frame), 1e-3)


@pytest.mark.parametrize(("num_classes", "dim"), [(6, 3), (6, 5), (5, 2), (2, 1), (2, 6)])
def test_every_metric_is_defined_whatever_the_sizes(num_classes, dim):
    """Classes of 1 to many samples; D below, at and above C-1."""
    generator = np.random.default_rng(0)
    labels = np.concatenate([np.arange(num_classes), np.zeros(40, int)])
    features = generator.standard_normal((len(labels), dim))
    frame = generator.standard_normal((dim, num_classes)) if dim > 1 else np.array([[2.0, -1.0]])
    found = measured(features, labels, frame, extra=True, ood_mean=np.ones(dim))
    assert np.isfinite(list(found.values())).all()
    assert min(value for key, value in found.items() if key.startswith("nc") and "log_energy" not in key) >= 0


def test_units_that_died_do_not_count():
    """A unit that is 0 for every sample leaves S_B singular where C > D; nothing there is inverted."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 6
    features = generator.standard_normal((6, 4))[labels] + 0.1 * generator.standard_normal((120, 4))
    features[:, 2] = 0
    alive, frame = np.delete(features, 2, axis=1), generator.standard_normal((4, 6))
    found = measured(features, labels, frame)["nc1_pinv"]
    assert found == pytest.approx(measured(alive, labels, np.delete(frame, 2, axis=0))["nc1_pinv"], rel=1e-5)


def test_disagreement_is_passed_through():
    features, labels, frame = collapsed(3, 4, 1.0, 0.1)
    stats = class_stats(jnp.asarray(features), jnp.asarray(labels), 3)
    assert neural_collapse(stats, frame, disagreement=0.25)["nc4_disagreement"] == 0.25
    assert "nc4_disagreement" not in neural_collapse(stats, frame)
