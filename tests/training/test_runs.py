"""Families: what differs between their runs, and what does not."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from ncjax import models
from ncjax.config import default_config, validate
from ncjax.errors import InputError
from ncjax.theory.frames import coherence
from ncjax.training.job import make_job
from ncjax.training.runs import base_frames, run_specs, stacked_frames, stacked_inputs


def counts(**changes):
    none = {"permutations": 0, "rotations": 0, "seeds": 0, "repeats": 0, "jitters": 0, "cross_seeds": 1}
    return ConfigDict(none | changes)


def frame_settings(**changes):
    return ConfigDict({"kind": "simplex_etf", "scale": 1.0, "path": ""} | changes)


def frames_of(specs, num_classes=4, dim=6):
    return stacked_frames(specs, base_frames(frame_settings(), num_classes, dim, seed=3), seed=3)


def write_frames(folder, count=3, dim=6, num_classes=4):
    given = np.random.default_rng(0).standard_normal((count, dim, num_classes))
    np.save(folder / "frames.npy", given)
    return given, frame_settings(kind="file", path=str(folder / "frames.npy"), scale=2.0)


def test_frame_families_share_every_seed_and_start_from_the_base_frame():
    specs = run_specs(counts(permutations=4, rotations=3, repeats=1), seed=5)
    assert {(s.init_seed, s.order_seed, s.augment_seed, s.jitter_seed) for s in specs} == {(5, 5, 5, 0)}
    frames = frames_of(specs)
    base = frames[-1]
    np.testing.assert_array_equal(frames[0], base)
    np.testing.assert_array_equal(frames[4], base)
    assert len({frame.tobytes() for frame in frames}) == 6
    for frame in frames:
        np.testing.assert_allclose(frame.T @ frame, base.T @ base, atol=1e-6)
    for permuted in frames[:4]:
        columns = {column.tobytes() for column in np.ascontiguousarray(base.T)}
        assert {column.tobytes() for column in np.ascontiguousarray(permuted.T)} == columns


def test_controls_change_only_what_they_say():
    specs = run_specs(counts(seeds=3, repeats=2, jitters=2), seed=5)
    assert [s.init_seed for s in specs] == [5, 6, 7, 5, 5, 5, 5]
    assert [s.jitter_seed for s in specs] == [0, 0, 0, 0, 0, 1, 2]
    assert {s.frame for s in specs} == {"base"}
    inputs = stacked_inputs(specs, frames_of(specs))
    assert inputs.frame.shape == (7, 6, 4)
    assert inputs.order_seed.dtype == np.uint32


def test_crossed_design_has_every_frame_with_every_seed():
    specs = run_specs(counts(permutations=3, cross_seeds=2), seed=0)
    assert len({(s.frame, s.init_seed) for s in specs}) == len(specs) == 6
    assert len({s.frame for s in specs}) == 3


def test_more_runs_leave_the_earlier_frames_alone():
    few, many = (frames_of(run_specs(counts(permutations=n, rotations=n), 0)) for n in (3, 5))
    np.testing.assert_array_equal(few[:3], many[:3])
    np.testing.assert_array_equal(few[3:], many[5:8])


def test_too_many_permutations_are_refused():
    with pytest.raises(InputError, match="6"):
        frames_of(run_specs(counts(permutations=7), 0), num_classes=3)


def test_frames_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="simplex ETF"):
        frames_of(run_specs(counts(seeds=1), 0), num_classes=8, dim=6)


def test_a_simplex_etf_is_one_base_frame_that_follows_the_seed():
    bases, again, other = (base_frames(frame_settings(scale=1.5), 4, 6, seed=seed) for seed in (3, 3, 4))
    assert bases.shape == (1, 6, 4)
    ideal = 1.5**2 * 4 / 3 * (np.eye(4) - 1 / 4)
    np.testing.assert_allclose(bases[0].T @ bases[0], ideal, atol=1e-12)
    np.testing.assert_array_equal(bases, again)
    assert not np.allclose(bases, other)


@pytest.mark.parametrize("kind", ["ufm_ce", "packing"])
def test_families_of_a_frame_with_more_classes_than_dimensions(kind):
    """Permutations keep its columns and rotations its Gram matrix; a permutation is no rotation of it."""
    specs = run_specs(counts(permutations=2, rotations=2, seeds=1), 0)
    frames = stacked_frames(specs, base_frames(frame_settings(kind=kind, scale=1.5), 5, 3, 0), seed=0)
    np.testing.assert_allclose(np.linalg.norm(frames, axis=1), 1.5, rtol=1e-6)
    base = frames[-1]
    assert coherence(base)["largest_cosine"] < 0.01
    np.testing.assert_array_equal(frames[0], base)
    np.testing.assert_array_equal(frames[2], base)
    np.testing.assert_array_equal(np.sort(frames[1], axis=1), np.sort(base, axis=1))
    np.testing.assert_allclose(frames[3].T @ frames[3], base.T @ base, atol=1e-5)
    assert np.abs(frames[1].T @ frames[1] - base.T @ base).max() > 0.1


def test_every_frame_of_a_file_is_a_run_and_the_first_is_the_base(tmp_path):
    given, settings = write_frames(tmp_path)
    bases = base_frames(settings, 4, 6, seed=0)
    specs = run_specs(counts(permutations=2, seeds=1, cross_seeds=2), 5, file_frames=len(bases))
    assert [s.frame for s in specs if s.family == "file"] == [
        "file-0",
        "file-0",
        "file-1",
        "file-1",
        "file-2",
        "file-2",
    ]
    assert [s.init_seed for s in specs if s.family == "file"] == [5, 6, 5, 6, 5, 6]
    frames = dict(zip([s.frame for s in specs], stacked_frames(specs, bases, seed=0), strict=True))
    for index in range(3):
        np.testing.assert_array_equal(frames[f"file-{index}"], (2 * given[index]).astype(np.float32))
    for same in ("base", "permutation-0"):
        np.testing.assert_array_equal(frames[same], frames["file-0"])


@pytest.mark.parametrize(("num_classes", "dim"), [(3, 6), (4, 5), (6, 4)])
def test_a_file_of_other_sizes_is_refused(tmp_path, num_classes, dim):
    _, settings = write_frames(tmp_path)
    with pytest.raises(InputError, match=rf"6 dimensions and 4 classes: .* \(K, {dim}, {num_classes}\)") as error:
        base_frames(settings, num_classes, dim, seed=0)
    assert "\n" not in str(error.value)


def test_a_simplex_etf_that_does_not_exist_names_the_kinds_that_do():
    with pytest.raises(InputError, match="ufm_ce or packing"):
        base_frames(frame_settings(), 8, 6, seed=0)


def test_a_job_takes_its_frames_from_the_file(tmp_path):
    given, settings = write_frames(tmp_path, count=2, dim=models.feature_dim("mlp"), num_classes=10)
    config = default_config()
    config.dataset.train_per_class = 20
    config.model.name = "mlp"
    config.frame.update(settings)
    config.runs.update(dict.fromkeys(("permutations", "rotations", "seeds", "repeats", "jitters"), 0))
    job = make_job(validate(config))
    assert [spec.frame for spec in job.specs] == ["file-0", "file-1"]
    np.testing.assert_array_equal(job.inputs.frame, (2 * given).astype(np.float32))
