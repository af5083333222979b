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
    [
        ((1, 4), "at least 2"),
        ((10, 8), "needs 9; .*ufm_ce or packing"),
        ((4, 4, 0.0), "above 0"),
        ((4, 4, -1.0), "above 0"),
        ((4, 4, float("nan")), "above 0"),
        ((4, 4, float("inf")), "above 0"),
    ],
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


@pytest.mark.parametrize(("num_classes", "dim"), [(2, 1), (4, 3), (10, 64)])
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


def test_nearest_simplex_etf_needs_the_dimensions():
    with pytest.raises(InputError, match="needs 5"):
        frames.nearest_simplex_etf(np.ones((3, 6)))


def test_coherence_of_known_frames():
    found = frames.coherence(frames.simplex_etf(10, 64, scale=3.0))
    assert found["rank"] == 9
    assert found["norm_min"] == pytest.approx(3.0)
    assert found["tightness"] == pytest.approx(1.0)
    assert frames.coherence(np.eye(4))["largest_cosine"] == 0
    stretched = frames.coherence(np.diag([1.0, 2.0, 4.0]))
    assert (stretched["norm_min"], stretched["norm_max"], stretched["tightness"]) == (1, 4, 0.25)
    assert frames.coherence(np.array([[1.0, 0, -1], [0, 1, -1]]))["largest_cosine"] == pytest.approx(0, abs=1e-15)


def test_coherence_takes_rounding_of_float32_for_what_it_is():
    found = frames.coherence(frames.simplex_etf(10, 64, key=jax.random.key(0)).astype(np.float32))
    assert found["rank"] == 9
    assert found["tightness"] == pytest.approx(1, abs=1e-6)


KNOWN_OPTIMA = [  # (dimension, classes, smallest largest cosine)
    (3, 4, -1 / 3),
    (3, 5, 0.0),
    (4, 8, 0.0),
    (2, 5, np.cos(np.deg2rad(72))),
    (3, 7, 0.2101383),
    (3, 8, 0.2612039),
    (3, 9, 1 / 3),
    (3, 10, 0.4043944),
    (3, 12, 5**-0.5),
    (5, 16, 1 / 5),
    (6, 27, 1 / 4),
]
QUICK = (5, 7, 16)


@pytest.mark.parametrize(
    ("dim", "num_classes", "optimum"),
    [pytest.param(*known, marks=() if known[1] in QUICK else pytest.mark.slow) for known in KNOWN_OPTIMA],
)
def test_packing_reaches_the_known_optima(dim, num_classes, optimum):
    frame = frames.ufm_frame(jax.random.key(0), num_classes, dim, objective="packing", scale=1.5)
    np.testing.assert_allclose(np.linalg.norm(frame, axis=0), 1.5, rtol=1e-12)
    assert frame.shape == (dim, num_classes)
    assert optimum - 1e-6 < frames.coherence(frame)["largest_cosine"] < optimum + 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["packing", "ufm_ce"])
def test_a_hundred_classes_in_64_dimensions(objective):
    frame = frames.ufm_frame(jax.random.key(0), 100, 64, objective=objective)
    assert frames.coherence(frame)["largest_cosine"] < 0.01  # the smallest possible is 0
    assert frames.coherence(frame)["rank"] == 64


@pytest.mark.parametrize("objective", ["packing", "ufm_ce"])
def test_where_a_simplex_etf_exists_the_solver_finds_it(objective):
    frame = frames.ufm_frame(jax.random.key(0), 4, 5, objective=objective, restarts=2, steps=400)
    np.testing.assert_allclose(frame.T @ frame, 4 / 3 * (np.eye(4) - 1 / 4), atol=1e-3)


def test_at_a_finite_scale_the_frame_of_cross_entropy_is_not_the_best_packing():
    cosine = frames.coherence(frames.ufm_frame(jax.random.key(0), 7, 3, objective="ufm_ce"))["largest_cosine"]
    assert 0.2101383 + 5e-3 < cosine < 0.2101383 + 2e-2


def test_the_key_decides_the_frame():
    first, again, other = (
        frames.ufm_frame(jax.random.key(seed), 5, 2, objective="packing", restarts=2, steps=40) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": "etf"}, "one of ufm_ce, packing"),
        ({"num_classes": 1}, "num_classes is 1"),
        ({"dim": 1}, "dim is 1"),
        ({"restarts": 0}, "restarts is 0"),
        ({"steps": 3}, "steps is 3"),
        ({"scale": -1.0}, "above 0"),
    ],
)
def test_impossible_solves_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        frames.ufm_frame(jax.random.key(0), **({"num_classes": 5, "dim": 3} | changes))


def test_the_users_frames_come_back(tmp_path):
    given = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    np.save(tmp_path / "frames.npy", given)
    found = frames.load_frames(tmp_path / "frames.npy")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.ones((3, 4)), r"shape \(3, 4\): it must be \(K, D, C\)"),
        (np.ones((0, 3, 4)), "shape"),
        (np.ones((1, 3, 1)), "C >= 2"),
        (np.full((1, 3, 4), np.nan), "not finite"),
        (np.ones((1, 3, 4), complex), "complex128"),
        (np.full((1, 3, 4), "a"), "not finite real"),
    ],
)
def test_files_that_are_no_frames_are_refused(tmp_path, given, said):
    np.save(tmp_path / "frames.npy", given)
    with pytest.raises(InputError, match=said):
        frames.load_frames(tmp_path / "frames.npy")


def test_missing_damaged_and_pickled_files_are_refused(tmp_path):
    path = tmp_path / "frames.npy"
    with pytest.raises(InputError, match="does not exist"):
        frames.load_frames(path)
    np.save(path, np.ones((2, 3, 4)))
    whole = path.read_bytes()
    for damaged in (b"", b"nonsense", whole[:40], whole[:-8]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read"):
            frames.load_frames(path)
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        frames.load_frames(path)
    with pytest.raises(InputError, match="cannot be read"):
        frames.load_frames(tmp_path)
