"""The run axis: every way to compute runs together equals a Python loop over single runs."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ncjax.errors import InputError
from ncjax.training import parallel
from ncjax.training.step import init_state, train_epoch

from .conftest import make_inputs, make_recipe, make_split


def programs(recipe, layout):
    init = parallel.over_runs(lambda inputs: init_state(recipe, inputs, (4, 4, 1)), layout)
    train = parallel.over_runs(
        lambda state, inputs, split: train_epoch(recipe, state, inputs, split), layout, donate=True
    )
    return init, train


def trained(recipe, inputs, split, layout, epochs=2):
    init, train = programs(recipe, layout)
    placed, shared = parallel.place_runs(inputs, layout), parallel.place_shared(split, layout)
    state = init(placed, (), ())
    for _ in range(epochs):
        state = train(state, (placed,), (shared,))
    assert train._cache_size() == 1
    return parallel.fetch_runs(state, layout.num_runs)


def looped(recipe, inputs, split, epochs=2):
    """The Python loop over single runs, nothing mapped."""
    step = jax.jit(lambda state, run: train_epoch(recipe, state, run, split))
    ends = []
    for index in range(len(inputs.order_seed)):
        run = jax.tree.map(lambda leaf, index=index: leaf[index], inputs)
        state = init_state(recipe, run, (4, 4, 1))
        for _ in range(epochs):
            state = step(state, run)
        ends.append(state)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *ends)


def layout_of(num_runs, runs_per_step=0, runs=0, data=0):
    return parallel.make_layout(num_runs, parallel.make_mesh(num_runs, runs, data), runs_per_step)


def assert_same(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def assert_bitwise(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_suite_runs_on_two_devices():
    assert jax.device_count() == 2


@pytest.mark.parametrize("runs_per_step", [1, 2, 3, 100])
@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_every_runs_per_step_equals_the_loop(split, runs_per_step, augment):
    recipe, inputs = make_recipe(augment=augment), make_inputs(5)
    found = trained(recipe, inputs, split, layout_of(5, runs_per_step))
    assert_same(found, looped(recipe, inputs, split), rtol=2e-5, atol=2e-6)


def test_equal_runs_are_equal_bitwise(recipe, split, inputs):
    found = trained(recipe, inputs, split, layout_of(5, 1))
    inputs = inputs._replace(frame=inputs.frame.copy())
    np.testing.assert_array_equal(inputs.frame[0], inputs.frame[1])
    first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], found) for i in (0, 1))
    assert_bitwise(first, second)


@pytest.mark.parametrize("runs_per_step", [1, 100])
def test_a_diverging_run_leaves_the_others_bitwise_alone(recipe, split, inputs, runs_per_step):
    layout = layout_of(5, runs_per_step)
    wild = inputs.frame.copy()
    wild[2] = np.inf
    calm, disturbed = (trained(recipe, inputs._replace(frame=f), split, layout) for f in (inputs.frame, wild))
    others = np.array([0, 1, 3, 4])
    assert_bitwise(*(jax.tree.map(lambda leaf: leaf[others], tree) for tree in (calm, disturbed)))
    assert np.isnan(disturbed.params["Dense_0"]["kernel"][2]).all()


@pytest.mark.parametrize("runs_per_step", [1, 100])
def test_a_batch_over_two_devices_equals_one_device(recipe, split, inputs, runs_per_step):
    """BatchNorm must see the whole batch and gradients be summed once."""
    together = trained(recipe, inputs, split, layout_of(5, runs_per_step))
    layout = layout_of(5, runs_per_step, runs=1, data=2)
    spread = make_recipe(place_batch=parallel.spread_batch(layout.mesh))
    assert_same(trained(spread, inputs, split, layout), together, rtol=2e-5, atol=2e-6)


def test_a_batch_is_really_spread(recipe, split, inputs):
    layout = layout_of(5, 1, runs=1, data=2)
    spread = make_recipe(place_batch=parallel.spread_batch(layout.mesh))
    init, train = programs(spread, layout)
    placed, shared = parallel.place_runs(inputs, layout), parallel.place_shared(split, layout)
    text = train.lower(init(placed, (), ()), (placed,), (shared,)).compile().as_text()
    assert "all-reduce" in text


def test_waves_equal_all_at_once(recipe, split, inputs):
    def total(first, second, shift):
        return {"sum": first["a"] + second.order_seed + shift}

    layout = layout_of(2)
    mapped = parallel.over_runs(total, layout)
    found = parallel.map_waves(mapped, layout, {"a": np.arange(5.0)}, inputs, (np.float32(10),))
    np.testing.assert_array_equal(found["sum"], np.arange(5) + inputs.order_seed + 10)


def test_waves_keep_every_run(inputs):
    waves = parallel.Waves(layout_of(2), 5)
    waves.load(inputs)
    assert len(waves) == 3
    for wave in range(3):
        waves.put(wave, waves.take(wave))
    assert_bitwise(waves.fetch_all(), inputs)


@pytest.mark.parametrize(("num_runs", "chunk", "padded"), [(1, 0, 1), (2, 0, 2), (5, 0, 6), (5, 2, 8), (5, 100, 6)])
def test_padding(num_runs, chunk, padded):
    assert layout_of(num_runs, chunk).padded_runs == padded


def test_a_mesh_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"config\.mesh"):
        parallel.make_mesh(4, runs=3)
    with pytest.raises(InputError, match=r"config\.mesh"):
        parallel.make_mesh(4, runs=2, data=3)


@pytest.mark.parametrize(
    ("devices", "num_runs", "batch", "along_runs"),
    [
        (8, 20, 128, 8),
        (8, 6, 128, 4),  # two devices share a batch
        (8, 1, 128, 1),
        (12, 10, 48, 6),
        (12, 5, 50, 6),  # 3 do not divide the batch of 50, 2 do: one device computes a copy
        (3, 2, 50, 3),
        (7, 1, 50, 7),
    ],
)
def test_automatic_mesh_for_any_number_of_devices(monkeypatch, devices, num_runs, batch, along_runs):
    monkeypatch.setattr(parallel.jax, "devices", lambda: [SimpleNamespace(platform="gpu")] * devices)
    monkeypatch.setattr(parallel.jax, "make_mesh", lambda shape, *_, **__: shape)
    assert parallel.make_mesh(num_runs, batch_size=batch) == (along_runs, devices // along_runs)


def test_a_batch_that_the_devices_do_not_divide_is_refused():
    with pytest.raises(InputError, match=r"batch_size is 25: it must divide by mesh\.data 2"):
        parallel.make_mesh(4, runs=1, data=2, batch_size=25)


def test_a_batch_that_does_not_divide_is_computed_everywhere():
    """As the last, smaller batch of an evaluation."""
    mesh = parallel.make_mesh(4, runs=1, data=2)
    odd = jax.jit(parallel.spread_batch(mesh))(np.arange(5))
    np.testing.assert_array_equal(odd, np.arange(5))


def test_mesh_axes():
    assert parallel.make_mesh(4, data=2).shape == {"runs": 1, "data": 2}
    assert parallel.make_mesh(4).shape == {"runs": 2, "data": 1}
    assert parallel.make_mesh(1).shape == {"runs": 1, "data": 1}
    assert make_split().labels.shape == (24,)
