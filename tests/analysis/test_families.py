"""Families of a workdir with planted numbers."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

from ncjax.analysis import figures
from ncjax.analysis.families import (
    control_table,
    crossed_families,
    crossed_table,
    diverged,
    last_epoch_below,
    terminal_phase_start,
    verdict,
)
from ncjax.analysis.runset import RunSet, load
from ncjax.analysis.statistics import cochran_q, crossed_design, smallest_detectable_effect
from ncjax.config import default_config, validate
from ncjax.store import records
from ncjax.theory.frames import simplex_etf
from ncjax.training.runs import run_specs, stacked_frames

NUM_TEST = 2_000


def planted_runs(path, accuracy, *, train=None, test_loss=None, **counts) -> RunSet:
    """A workdir written by hand.

    Args:
      accuracy: `accuracy(specs)` gives the rate (R,) at which test images are right, independently of each other.
      train: `train(test accuracy (R,))` gives {metric: (R,) or (R, E)} beside a loss of 0.01 and an accuracy of 1.
      test_loss: the same for (R,) or (R, E); by default the test error.
      counts: of config.runs; families not named are empty.
    """
    config = default_config()
    config.runs.update(dict.fromkeys(("permutations", "rotations", "seeds", "repeats", "jitters"), 0) | counts)
    specs = run_specs(config.runs, config.seed)
    labels = {"train": np.arange(50) % 10, "test": np.arange(NUM_TEST) % 10}
    wrong = np.random.default_rng(7).random((len(specs), NUM_TEST)) > np.asarray(accuracy(specs))[:, None]
    reached = 1 - wrong.mean(axis=1)
    metrics = {("loss", "train"): np.full(len(specs), 0.01), ("accuracy", "train"): np.ones(len(specs))}
    metrics |= {(name, "train"): values for name, values in (train(reached) if train else {}).items()}
    metrics |= {("accuracy", "test"): reached, ("loss", "test"): test_loss(reached) if test_loss else 1 - reached}
    epochs = max(np.shape(values)[1] if np.ndim(values) > 1 else 1 for values in metrics.values())
    records.write_json(path / "runs.json", [spec.as_dict() for spec in specs])
    records.write_array(path / "frames.npy", stacked_frames(specs, simplex_etf(10, 16)[None], config.seed))
    records.write_arrays(path / "labels.npz", labels)
    records.write_json(path / "config.json", validate(config).to_dict())
    records.append_rows(path, list(_rows(metrics, epochs)))
    predictions = ((labels["test"] + wrong) % 10).astype(np.uint16)
    records.write_arrays(records.arrays_path(path, epochs), {"test_predictions": predictions})
    return load(path)


def _rows(metrics, epochs):
    for (metric, split), values in metrics.items():
        curves = values if np.ndim(values) > 1 else np.tile(np.asarray(values)[:, None], epochs)
        for (run, column), value in np.ndenumerate(curves):
            yield dict(zip(records.COLUMNS, (column + 1, column + 1, run, split, metric, value), strict=True))


def by_frame(spread, rate=0.94):
    """Rates that depend on the frame alone, the frames of a family evenly spread around `rate`."""

    def rates(specs):
        places = {frame: place for place, frame in enumerate(dict.fromkeys(spec.frame for spec in specs))}
        return np.array([rate + spread * np.sin(3 * places[spec.frame]) for spec in specs])

    return rates


@pytest.fixture(scope="module")
def crossed_runs(tmp_path_factory):
    counts = {"permutations": 8, "rotations": 6, "cross_seeds": 5, "seeds": 9, "repeats": 1, "jitters": 3}
    return planted_runs(tmp_path_factory.mktemp("crossed"), by_frame(0.02), **counts)


@pytest.fixture(scope="module")
def plain_runs(tmp_path_factory):
    return planted_runs(tmp_path_factory.mktemp("plain"), by_frame(0.02), permutations=8, seeds=9, repeats=2)


def test_terminal_phase_starts_at_the_first_perfect_evaluation():
    epochs = np.array([1, 2, 5, 9])
    accuracy = np.array([[0.5, 1.0, 0.9, 1.0], [0.9, 0.99, 1.0, 1.0], [0.1, 0.2, 0.3, 0.4]])
    np.testing.assert_array_equal(terminal_phase_start(epochs, accuracy), [2, 5, np.nan])
    np.testing.assert_array_equal(terminal_phase_start(epochs, accuracy, 0.9), [2, 1, np.nan])


def test_last_epoch_below_is_the_last_imperfect_evaluation():
    epochs = np.array([1, 2, 5, 9])
    accuracy = np.array([[0.5, 1.0, 0.9, 1.0], [1.0, 1.0, 1.0, 1.0], [0.1, 0.2, 0.3, 0.4]])
    np.testing.assert_array_equal(last_epoch_below(epochs, accuracy), [5, 0, 9])


def test_only_families_with_frames_and_seeds_are_crossed(crossed_runs, plain_runs):
    found = crossed_families(crossed_runs)
    assert list(found) == ["permutation", "rotation"]
    assert found["rotation"].values.shape == (6, 5)
    assert found["rotation"].frames == [f"rotation-{index}" for index in range(6)]
    accuracy, members = crossed_runs.values("accuracy", "test"), crossed_runs.families["rotation"]
    np.testing.assert_array_equal(found["rotation"].values.ravel(), accuracy[members])
    assert crossed_families(plain_runs) == {}
    assert crossed_table(plain_runs) == []


def test_crossed_table_finds_the_planted_frames(crossed_runs):
    table = crossed_table(crossed_runs)
    for row in table:
        assert row["p"] < 1e-6
        assert row["share_low"] > 0.4
        assert 0 < row["detectable_std"] < 0.01
        assert 0 < row["detectable_share"] < 1
    design = crossed_design(crossed_families(crossed_runs)["permutation"].values)
    assert design.items() <= table[0].items()


def test_a_frame_of_which_a_run_diverged_is_left_out(tmp_path):
    def loss(accuracy):
        return np.where(np.arange(len(accuracy)) == 7, np.nan, 1 - accuracy)

    runs = planted_runs(tmp_path, by_frame(0.02), test_loss=loss, permutations=6, cross_seeds=3)
    assert np.flatnonzero(diverged(runs)).tolist() == [7]
    found = crossed_families(runs)["permutation"]
    assert found.left_out == 1
    assert "permutation-2" not in found.frames
    assert np.isfinite(found.values).all()
    assert crossed_table(runs)[0]["frames"] == 5
    assert control_table(runs)[0]["runs"] == 17


def test_control_table_has_a_row_per_family(crossed_runs, plain_runs):
    table = {row["family"]: row for row in control_table(plain_runs)}
    assert list(table) == ["permutation", "seed", "repeat"]
    correct = plain_runs.arrays()["test_predictions"] == plain_runs.labels["test"]
    assert (table["seed"]["q"], table["seed"]["q_p"]) == cochran_q(correct[plain_runs.families["seed"]])
    assert table["permutation"]["q_p"] < 0.01 < table["seed"]["q_p"]
    assert table["permutation"]["vote_accuracy"] > table["permutation"]["accuracy_mean"]
    noise = np.std(plain_runs.values("accuracy", "test")[plain_runs.families["seed"]], ddof=1)
    assert table["permutation"]["detectable_std"] == smallest_detectable_effect(noise, 7, 8)
    assert np.isnan(table["seed"]["detectable_std"])
    crossed = {row["family"]: row for row in control_table(crossed_runs)}
    assert crossed["rotation"]["detectable_std"] == crossed_table(crossed_runs)[1]["detectable_std"]


def test_verdict_states_share_and_interval_of_a_crossed_design(crossed_runs):
    said = verdict(crossed_runs)
    assert "over 8 permutations x 5 seeds (95 % interval " in said
    assert "over 6 rotations x 5 seeds" in said
    assert "chance alone would hardly give it" in said
    assert said.count(".0") == 2  # the two smallest detectable spreads
    assert "\n" not in said


def test_verdict_without_frame_effect_or_without_any_variance(tmp_path):
    quiet = planted_runs(tmp_path / "quiet", by_frame(0), permutations=6, cross_seeds=5)
    assert "chance alone would give as much" in verdict(quiet)
    perfect = planted_runs(tmp_path / "perfect", by_frame(0, rate=1.0), permutations=6, cross_seeds=5)
    assert "does not vary at all" in verdict(perfect)


def test_verdict_of_families_that_are_not_crossed(plain_runs):
    assert "Brown-Forsythe" in verdict(plain_runs)


def test_crossed_figure_has_a_point_per_run_and_a_bar_per_frame(crossed_runs, tmp_path):
    with matplotlib.rc_context(figures.STYLE):
        figure = figures.crossed_accuracy(crossed_runs)
        figure.savefig(tmp_path / "crossed.png")
    points = [sum(len(part.get_offsets()) for part in axis.collections[:5]) for axis in figure.axes]
    assert points == [40, 30]
    assert "% of variance" in figure.axes[0].get_title(loc="left")
    assert (np.asarray(Image.open(tmp_path / "crossed.png").convert("L")) < 250).mean() > 0.005
