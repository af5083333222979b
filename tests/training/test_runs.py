"""Families: what differs between their runs, and what does not."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from ncjax.errors import InputError
from ncjax.training.runs import run_specs, stacked_frames, stacked_inputs


def counts(**changes):
    none = {"permutations": 0, "rotations": 0, "seeds": 0, "repeats": 0, "jitters": 0, "cross_seeds": 1}
    return ConfigDict(none | changes)


def frames_of(specs, num_classes=4, dim=6):
    return stacked_frames(specs, num_classes, dim, 1.0, seed=3)


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
