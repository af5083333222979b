"""A sweep equals doing it all at once, whatever the batching."""

import jax
import numpy as np
import pytest

from ncjax.theory import complexity
from ncjax.training import evaluate as module
from ncjax.training.evaluate import evaluate, split_features, sweep
from ncjax.training.measure import arrays_of, measure, measure_runs
from ncjax.training.step import init_state

from .conftest import make_inputs, make_split


@pytest.fixture
def state(recipe, inputs):
    return init_state(recipe, jax.tree.map(lambda leaf: leaf[0], inputs), (4, 4, 1))


def direct(recipe, state, split, frame, means=None):
    """Everything from all features at once, float64."""
    z = np.asarray(split_features(recipe, state, split), np.float64)
    logits = z @ frame
    own = logits[np.arange(len(z)), split.labels]
    others = np.where(np.eye(frame.shape[1], dtype=bool)[split.labels], -np.inf, logits)
    means = np.stack([z[split.labels == c].mean(axis=0) for c in range(frame.shape[1])]) if means is None else means
    distances = np.linalg.norm(z[:, None] - means[None], axis=2)
    return {
        "losses": np.log(np.exp(logits).sum(axis=1)) - own,
        "predictions": logits.argmax(axis=1),
        "nearest": distances.argmin(axis=1),
        "margins": own - others.max(axis=1),
    }, means


@pytest.mark.parametrize("batch_size", [7, 24, 1000])
@pytest.mark.parametrize("keep_features", [True, False])
def test_sweep_equals_all_at_once(recipe, state, inputs, monkeypatch, batch_size, keep_features):
    monkeypatch.setattr(module, "BATCH_SIZE", batch_size)
    train, test, frame = make_split(24), make_split(17, seed=1), inputs.frame[0]
    found = evaluate(recipe, state, frame, train, test, keep_features=keep_features)
    expected, means = direct(recipe, state, train, frame)
    expected_test, _ = direct(recipe, state, test, frame, means)
    for part, wanted in ((found.train, expected), (found.test, expected_test)):
        for name, values in wanted.items():
            np.testing.assert_allclose(getattr(part, name), values, rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(found.train.stats.means, means, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.test.stats.counts, np.bincount(test.labels))


def test_measures_agree_with_their_definitions(recipe, state, inputs):
    split, frame = make_split(24), inputs.frame[0]
    found = jax.device_get(sweep(recipe, state, frame, split, keep_features=True))
    values = measure(found, split.labels, frame).metrics
    expected, _ = direct(recipe, state, split, frame)
    assert values["accuracy"] == np.mean(expected["predictions"] == split.labels)
    np.testing.assert_allclose(values["loss"], expected["losses"].mean(), rtol=1e-5)
    np.testing.assert_allclose(values["p_min"], expected["margins"].min(), rtol=1e-5)
    assert values["nc4_disagreement"] == np.mean(expected["predictions"] != expected["nearest"])


def test_rademacher_complexity_of_a_sweep_is_that_of_its_features(recipe, state, inputs, monkeypatch):
    monkeypatch.setattr(module, "BATCH_SIZE", 7)
    monkeypatch.setattr(module, "SIGN_DRAWS", 500)
    split, frame = make_split(24), inputs.frame[0]
    found = sweep(recipe, state, frame, split, keep_features=True)
    z, key = split_features(recipe, state, split), jax.random.key(5)
    np.testing.assert_allclose(found.rademacher, complexity.rademacher(key, z, draws=500), rtol=0.1)
    by_class = complexity.rademacher_by_class(key, z, split.labels, frame.shape[1], draws=500)
    np.testing.assert_allclose(found.class_rademacher, by_class, rtol=0.1)
    assert found.rademacher < found.class_rademacher.min()  # more samples, less of it


def test_rows_and_arrays_cover_every_run_and_both_splits(recipe, inputs):
    inputs = make_inputs(2)
    train, test = make_split(24), make_split(17, seed=1)
    states = jax.vmap(lambda run: init_state(recipe, run, (4, 4, 1)))(inputs)
    swept = jax.vmap(lambda s, f: evaluate(recipe, s, f, train, test, keep_features=True))(states, inputs.frame)
    swept = jax.device_get(swept)
    found = measure_runs(swept, {"train": train.labels, "test": test.labels}, inputs.frame)
    rows = found.metrics
    values = {(row["run"], row["split"], row["metric"]): row["value"] for row in rows}
    for row in found.bounds:
        np.testing.assert_equal(row["value"], values[row["run"], row["split"], f"bound_{row['bound']}"])
    assert len(found.bounds) == 2 * 2 * 6
    keys = {(row["run"], row["split"], row["metric"]) for row in rows}
    assert len(keys) == len(rows)
    assert {(run, split, "p_min") for run in (0, 1) for split in ("train", "test")} <= keys
    arrays = arrays_of(swept)
    assert arrays["train_pairwise_margins"].shape == (2, 3, 3)
    assert arrays["test_predictions"].shape == (2, 17)
    p_min = [row["value"] for row in rows if row["metric"] == "p_min" and row["split"] == "train"]
    np.testing.assert_allclose(np.nanmin(arrays["train_pairwise_margins"], axis=(1, 2)), p_min, rtol=1e-6)
