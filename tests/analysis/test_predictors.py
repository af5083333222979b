"""Predictors on simulated runs with known answers, and from a workdir with planted numbers."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

from ncjax.analysis import figures
from ncjax.analysis.predictors import across_epochs, across_runs, distinct, frame_sparsity, predictor_table

from .test_families import by_frame, planted_runs

QUICK = {"permutations": 1_000, "resamples": 100}


def noise(generator, names="abcdefgh", count=12):
    return {name: generator.standard_normal(count) for name in names}


def rows_of(table):
    return {row["predictor"]: row for row in table}


def test_a_planted_predictor_is_found_among_noise():
    generator = np.random.default_rng(0)
    error = generator.standard_normal(30)
    candidates = noise(generator, count=30) | {"margin": -error + 0.5 * generator.standard_normal(30)}
    table = predictor_table(candidates, error)
    assert [row["predictor"] for row in table if row["p_holm"] < 0.05] == ["margin"]
    assert table[0]["predictor"] == "margin"
    assert table[0]["spearman_low"] < table[0]["spearman"] < table[0]["spearman_high"] < -0.4
    assert table[0]["kendall_low"] < table[0]["kendall"] < table[0]["kendall_high"] < 0
    assert table[0]["looks"] == 9


def test_nothing_is_found_in_noise_in_95_percent_of_tables():
    generator = np.random.default_rng(1)
    found = 0
    for seed in range(300):
        table = predictor_table(noise(generator), generator.standard_normal(12), seed=seed, **QUICK)
        found += min(row["p_holm"] for row in table) < 0.05
    assert found / 300 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_effects_of_groups_frames_and_seeds_pass_for_no_relation():
    """Every candidate and the target have such effects, independently; counting runs as independent finds many."""
    generator = np.random.default_rng(2)
    groups = [np.arange(30).reshape(6, 5), 30 + np.arange(25).reshape(5, 5), 55 + np.arange(5)[:, None]]

    def values():
        seeds, parts = generator.standard_normal(5), []
        for frames in (6, 5):
            frame = generator.standard_normal((frames, 1))
            family = 3 * generator.standard_normal()
            parts.append((family + frame + seeds + generator.standard_normal((frames, 5))).ravel())
        return np.concatenate([*parts, generator.standard_normal(5)])

    found = np.zeros(2)
    for seed in range(150):
        candidates, error = {name: values() for name in "abcdefgh"}, values()
        for index, grids in enumerate((groups, None)):
            table = predictor_table(candidates, error, groups=grids, seed=seed, **QUICK)
            found[index] += min(row["p_holm"] for row in table) < 0.05
    assert found[0] / 150 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
    assert found[1] / 150 > 0.3


def test_a_relation_within_groups_is_found_though_groups_hide_it():
    generator = np.random.default_rng(3)
    error = generator.standard_normal(24)
    margin = -error + 0.3 * generator.standard_normal(24)
    offset = np.repeat([0.0, 20.0], 12)
    groups = [np.arange(12)[:, None], 12 + np.arange(12)[:, None]]
    candidates = {"margin": margin + offset}
    assert predictor_table(candidates, error + offset)[0]["spearman"] > 0.2
    assert predictor_table(candidates, error + offset, groups=groups)[0]["spearman"] < -0.8


def test_copies_count_as_one_look():
    generator = np.random.default_rng(4)
    margin = generator.random(12)
    candidates = {"margin": margin, "scaled": 3 * margin, "bound": 1 / margin, "other": generator.random(12)}
    assert distinct(candidates) == {"margin": ["scaled", "-bound"], "other": []}
    rows = rows_of(predictor_table(candidates, generator.random(12), **QUICK))
    assert rows["margin"]["stands_for"] == "scaled, -bound"
    assert rows["margin"]["looks"] == 2
    assert set(rows) == {"margin", "other"}


def test_copies_are_dropped_in_groups_whose_means_are_removed():
    generator = np.random.default_rng(5)
    x = generator.standard_normal(20)
    groups = [np.arange(10)[:, None], 10 + np.arange(10)[:, None]]
    table = predictor_table({"x": x, "exp": np.exp(x)}, generator.standard_normal(20), groups=groups, **QUICK)
    assert [row["stands_for"] for row in table] == ["exp"]


def test_constant_and_undefined_candidates_are_left_out_with_a_note():
    generator = np.random.default_rng(6)
    bound = np.where(np.arange(12) < 2, np.nan, 1.0)
    rounding = 1 + 1e-8 * generator.random(12)
    candidates = noise(generator, "a") | {"constant": np.full(12, 0.1), "bound": bound, "rounding": rounding}
    table = predictor_table(candidates, generator.standard_normal(12), **QUICK)
    assert [row["predictor"] for row in table] == ["a", "constant", "bound", "rounding"]
    assert [row["note"] for row in table] == ["", "constant", "not finite in 2 of 12 runs", "constant"]
    assert np.isnan(table[1]["spearman"])
    assert len({tuple(row) for row in table}) == 1  # equal columns
    assert predictor_table({"constant": np.ones(12)}, generator.random(12), **QUICK)[0]["note"] == "constant"


def test_runs_without_target_are_left_out_and_few_runs_say_so():
    generator = np.random.default_rng(7)
    error = generator.standard_normal(12)
    error[[3, 8]] = np.nan, np.inf
    candidates = noise(generator, "ab")
    candidates["a"][3] = np.nan  # undefined where the run diverged
    assert [row["runs"] for row in predictor_table(candidates, error, **QUICK)] == [10, 10]
    grid = [np.arange(12).reshape(6, 2)]
    assert predictor_table(candidates, error, groups=grid, **QUICK)[0]["runs"] == 8  # whole frames
    few = predictor_table(candidates, np.where(np.arange(12) < 4, 1.0, np.nan))
    assert [(row["predictor"], row["note"]) for row in few] == [("all", "4 different runs, fewer than 5")]
    assert predictor_table(candidates, np.full(12, np.nan))[0]["runs"] == 0
    assert predictor_table(candidates, np.ones(12))[0]["note"] == "the target is constant"


def test_tables_repeat():
    generator = np.random.default_rng(8)
    candidates, error = noise(generator), generator.standard_normal(12)
    assert predictor_table(candidates, error, **QUICK) == predictor_table(candidates, error, **QUICK)


def test_sparsity_of_known_frames():
    spread = np.array([[1.0, -1.0], [1.0, 1.0]])
    found = frame_sparsity(np.stack([np.eye(2), spread]))
    np.testing.assert_allclose(found["frame_hoyer"], [1, 0], atol=1e-6)
    np.testing.assert_allclose(found["frame_zeros"], [0.5, 0])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    def train(accuracy):
        generator = np.random.default_rng(9)
        count = len(accuracy)
        growing = np.arange(1, 13) + np.zeros((count, 1))
        p_min = 50 * accuracy[:, None] - 40 + 0.1 * growing + 0.3 * generator.standard_normal((count, 1))
        fitted = np.where(growing < 5, 0.9, 1.0)
        rounding = 1e-8 * generator.random(count)
        return {"accuracy": fitted, "p_min": p_min, "twice": 2 * p_min, "nc2_etf_error_frame": rounding}

    def test_loss(accuracy):
        return (1 - accuracy)[:, None] + 1 / np.arange(1, 13)

    counts = {"permutations": 8, "rotations": 6, "seeds": 9, "repeats": 6, "jitters": 3}
    return planted_runs(tmp_path_factory.mktemp("runs"), by_frame(0.02), train=train, test_loss=test_loss, **counts)


@pytest.fixture(scope="module")
def table(runs):
    width = np.random.default_rng(10).random(len(runs.specs))
    return across_runs(runs, {"width": width}, permutations=2_000, resamples=200)


def test_across_runs_finds_the_planted_margin_in_the_pool(table):
    for target in ("test_error", "test_loss"):
        rows = rows_of(row for row in table if row["family"] == "pooled" and row["target"] == target)
        assert rows["p_min"]["spearman"] < -0.7
        assert rows["p_min"]["p_holm"] < 0.01
        assert rows["p_min"]["stands_for"] == "twice"
        assert rows["width"]["p_holm"] > 0.05
        assert rows["nc2_etf_error_frame"]["note"] == "constant"
        assert rows["frame_hoyer"]["note"] == ""  # it differs between rotations


def test_equal_runs_count_once(table):
    """The base frame with the base seed is the first of permutations, rotations and seeds, and every repeat."""
    runs_of = {row["family"]: row["runs"] for row in table}
    assert runs_of == {"permutation": 8, "rotation": 6, "seed": 9, "repeat": 1, "jitter": 3, "pooled": 8 + 5 + 8}
    notes = {row["family"]: row["note"] for row in table if row["predictor"] == "all"}
    assert notes == {name: f"{runs_of[name]} different runs, fewer than 5" for name in ("repeat", "jitter")}


def test_across_epochs_follows_the_planted_growth(runs):
    rows = {(row["phase"], row["target"], row["predictor"]): row for row in across_epochs(runs)}
    for phase, epochs in (("all epochs", 12), ("terminal phase", 8)):
        row = rows[phase, "test_loss", "p_min"]
        assert (row["spearman_median"], row["kendall_min"], row["kendall_max"]) == pytest.approx((-1, -1, -1))
        assert row["runs"] == 8 + 5 + 8 + 3, epochs
        assert rows[phase, "test_error", "p_min"]["runs"] == 0  # test accuracy was planted constant
        assert "constant" in rows[phase, "test_error", "p_min"]["note"]
    assert rows["terminal phase", "test_loss", "accuracy"]["runs"] == 0
    assert rows["all epochs", "test_loss", "accuracy"]["runs"] > 0
    assert rows["all epochs", "test_loss", "nc2_etf_error_frame"]["runs"] == 0


def test_figure_marks_what_survives_the_correction(table, tmp_path):
    with matplotlib.rc_context(figures.STYLE):
        figure = figures.predictor_correlations(table)
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names[0] == r"$p_{\min}$ (+1)"
    assert set(names[1:]) == {"width", "frame hoyer"}
    assert len(figure.axes) == 2
    (path,) = figures.draw_predictors(table, tmp_path)
    assert (np.asarray(Image.open(path).convert("L")) < 250).mean() > 0.005
    assert path.with_suffix(".pdf").stat().st_size > 1000
    assert figures.draw_predictors(table, tmp_path, family="jitter") == []
