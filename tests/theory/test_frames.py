"""Frames: exact geometry, exact symmetry."""

import jax
import numpy as np
import pytest
import scipy.stats

from ncjax.errors import InputError
from ncjax.theory import frames

SIZES = [(2, 1), (2, 5), (3, 2), (4, 4), (10, 9), (10, 64), (100, 512)]


@pytest.mark.parametrize(("num_classes", "dim"), SIZES)
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_gram_of_the_simplex_etf(num_classes, dim, seed):
    key = None if seed is None else jax.random.key(seed)
    frame = frames.simplex_etf(num_classes, dim, scale=1.7, key=key)
    ideal = 1.7**2 * num_classes / (num_classes - 1) * (np.eye(num_classes) - 1 / num_classes)
    np.testing.assert_allclose(frame.T @ frame, ideal, atol=1e-12)
    np.testing.assert_allclose(frame.sum(axis=1), 0, atol=1e-12)
    assert np.linalg.matrix_rank(frame) == num_classes - 1


def test_axis_aligned_frame_lives_on_the_first_axes():
    frame = frames.simplex_etf(4, 7)
    assert (frame[4:] == 0).all()
    assert frame[0, 0] == frame[:4].max()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((1, 4), "at least 2"), ((10, 8), "needs 9"), ((4, 4, 0.0), "above 0"), ((4, 4, -1.0), "above 0")],
)
def test_impossible_frames_are_refused(arguments, said):
    num_classes, dim, *scale = arguments
    with pytest.raises(InputError, match=said):
        frames.simplex_etf(num_classes, dim, **({"scale": scale[0]} if scale else {}))


def test_rotations_are_orthogonal_and_haar():
    """The first column of a Haar rotation is uniform on the sphere; QR without the signs of R fails this."""
    rotations = np.stack([frames.random_rotation(jax.random.key(seed), 3) for seed in range(400)])
    np.testing.assert_allclose(
        rotations @ rotations.swapaxes(1, 2), np.broadcast_to(np.eye(3), (400, 3, 3)), atol=1e-14
    )
    # in three dimensions a coordinate of a uniform direction is itself uniform on [-1, 1] (Archimedes)
    for row in range(3):
        for column in range(3):
            assert scipy.stats.kstest(rotations[:, row, column], scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-4
    assert 0.4 < (np.linalg.det(rotations) > 0).mean() < 0.6


def test_permutations_are_distinct_start_with_the_identity_and_keep_their_order():
    key = jax.random.key(0)
    few, all_six = (frames.distinct_permutations(key, 3, count) for count in (4, 6))
    np.testing.assert_array_equal(few[0], [0, 1, 2])
    np.testing.assert_array_equal(few, all_six[:4])
    assert len({tuple(p) for p in all_six}) == 6
    assert {tuple(sorted(p)) for p in all_six} == {(0, 1, 2)}
    with pytest.raises(InputError, match="only 6 permutations, 7"):
        frames.distinct_permutations(key, 3, 7)
    assert frames.distinct_permutations(key, 1000, 3).shape == (3, 1000)


@pytest.mark.parametrize(("num_classes", "dim"), SIZES)
def test_every_permutation_of_a_simplex_etf_is_a_rotation(num_classes, dim):
    key = jax.random.key(7)
    frame = frames.simplex_etf(num_classes, dim, key=key)
    permutation = frames.random_permutation(key, num_classes)
    rotation = frames.rotation_of_permutation(frame, permutation)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(dim), atol=1e-12)
    np.testing.assert_allclose(frames.rotate(frame, rotation), frames.permute(frame, permutation), atol=1e-12)


def test_that_is_not_so_for_other_frames():
    frame = np.random.default_rng(0).standard_normal((3, 5))
    permutation = np.array([1, 0, 2, 3, 4])
    rotation = frames.rotation_of_permutation(frame, permutation)
    assert np.abs(frames.rotate(frame, rotation) - frames.permute(frame, permutation)).max() > 0.1


@pytest.mark.parametrize(("num_classes", "dim"), [(4, 3), (10, 64)])
def test_nearest_simplex_etf(num_classes, dim):
    frame = frames.simplex_etf(num_classes, dim, scale=2.5, key=jax.random.key(0))
    np.testing.assert_allclose(frames.nearest_simplex_etf(frame), frame, atol=1e-12)
    noisy = frame + 0.1 * np.random.default_rng(0).standard_normal(frame.shape)
    nearest = frames.nearest_simplex_etf(noisy)
    assert frames.coherence(nearest)["largest_cosine"] == pytest.approx(-1 / (num_classes - 1), abs=1e-12)
    distance = np.linalg.norm(nearest - noisy)
    for seed in range(20):
        other = frames.rotate(
            nearest, np.linalg.qr(np.eye(dim) + 0.05 * np.random.default_rng(seed).standard_normal((dim, dim)))[0]
        )
        assert distance <= np.linalg.norm(other - noisy)
    assert distance <= min(np.linalg.norm(factor * nearest - noisy) for factor in (0.95, 1.05))


def test_coherence_of_known_frames():
    found = frames.coherence(frames.simplex_etf(10, 64, scale=3.0))
    assert found["rank"] == 9
    assert found["norm_min"] == pytest.approx(3.0)
    assert found["tightness"] == pytest.approx(1.0)
    assert frames.coherence(np.eye(4))["largest_cosine"] == 0
