"""How many runs fit, and what a job would take."""

import math

import jax
import numpy as np
import pytest

from ncjax.errors import InputError
from ncjax.training import parallel
from ncjax.training.cost import step_cost
from ncjax.training.job import make_job, make_programs, splits_of
from ncjax.training.memory import GIB, compile_phases, fit, largest_fitting, memory_limit, memory_of
from ncjax.training.plan import plan
from ncjax.training.train import train

from .conftest import assert_same_workdir, make_recipe, settings_for


@pytest.mark.parametrize(("limit", "fits"), [(1000, 10), (200, 10), (199, 9), (120, 2), (119, 1), (110, 1)])
def test_the_most_runs_within_the_limit(limit, fits):
    assert largest_fitting(lambda runs: 100 + 10 * runs, 10, limit) == fits


def test_a_need_that_is_not_quite_linear_stays_within_the_limit():
    def need(runs):
        return 100 + 10 * runs + (7 if runs % 3 == 0 else 0)

    for limit in range(110, 210):
        assert need(largest_fitting(need, 10, limit)) <= limit


def test_a_compiler_that_gives_up_halves_the_runs():
    assert largest_fitting(lambda runs: math.inf if runs > 3 else runs, 16, 10) == 2


def test_one_run_too_many_is_refused():
    with pytest.raises(InputError, match=r"one run needs 2 GiB.*1 may be used"):
        largest_fitting(lambda runs: 2 * GIB, 4, GIB)


def need_of(job, programs):
    return max(memory_of(phase).total for phase in compile_phases(job, programs).values())


def test_a_small_limit_trains_in_waves_with_the_same_numbers(whole, data_file, tmp_path):
    job = make_job(settings_for(data_file))
    everything = need_of(job, make_programs(job))
    limited = settings_for(data_file, memory_gib=0.9 * everything / GIB)
    fitted, programs = fit(make_job(limited))
    assert 2 < fitted.layout.num_runs < len(job.specs)  # two loop over their runs: bitwise the same
    assert need_of(fitted, programs) <= memory_limit(limited) == pytest.approx(0.9 * everything)
    assert train(limited, tmp_path / "waves") == 6
    assert_same_workdir(whole[0], tmp_path / "waves", limited)


@pytest.mark.parametrize("runs_per_step", [1, 2])
def test_memory_grows_with_the_runs_by_their_state_alone(data_file, runs_per_step):
    def memory(seeds):
        job = make_job(settings_for(data_file, runs_per_step=runs_per_step, **{"runs.seeds": seeds}))
        return memory_of(compile_phases(job, make_programs(job))["train_epoch"])

    few, many = memory(9), memory(37)  # and 3 others: 6 and 20 a device
    states = 14 * 4 * (2 * 21_120 + 640)  # parameters, momentum, batch statistics
    inputs = 14 * (4 * 64 * 3 + 4 * 4)
    assert many.temporary - few.temporary < 0.01 * states
    assert many.arguments - few.arguments == pytest.approx(states + inputs, rel=0.01)


def test_without_a_limit_all_runs_are_one_wave(data_file):
    settings = settings_for(data_file)
    assert fit(make_job(settings))[0].layout.num_runs == 5
    assert 0 < memory_limit(settings) < math.inf


def test_calls_reuse_what_the_memory_analysis_compiled(data_file):
    job, programs = fit(make_job(settings_for(data_file)))
    splits = tuple(parallel.place_shared(split, job.layout) for split in splits_of(job.dataset))
    own = parallel.place_runs(job.inputs, job.layout)
    state = programs.init(own, (), ())
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    jax.block_until_ready((programs.evaluate(state, (own,), splits), programs.train_epoch(state, (own,), splits[:1])))
    assert not [event for event in compiled if "backend_compile" in event]


def test_plan_says_what_a_job_takes_and_writes_nothing(data_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = dict(plan(settings_for(data_file)))
    assert lines["parameters"].startswith("21,")  # 16 x 256 + 256 x 64 weights, BatchNorm on 256 and 64
    assert lines["runs"].startswith("5 in waves of 5")
    assert {"memory, train_epoch", "memory, evaluate", "one step, one run", "whole job"} <= lines.keys()
    assert not list(tmp_path.iterdir())


def test_cost_of_a_step_is_its_arithmetic():
    """A matrix (16, 5) on 8 images forward and its gradient: two matmuls; BatchNorm and the classifier add to that."""
    cost = step_cost(make_recipe(), (4, 4, 1), (5, 3))
    matmuls = 2 * 2 * 8 * 16 * 5
    assert matmuls < cost.flops < 4 * matmuls
    assert cost.bytes_accessed > 4 * 16 * 5 * np.dtype(np.float32).itemsize
