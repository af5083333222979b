"""From a trained workdir to tables, figures and features."""

import numpy as np
import pytest
from PIL import Image

import ncjax
from ncjax.analysis.families import family_table, verdict
from ncjax.analysis.summary import summarise, table_text
from ncjax.errors import InputError


def test_what_a_notebook_user_gets(runs):
    assert len(runs.specs) == len(runs.frames) == 13
    assert runs.steps == [24, 48]
    assert runs.families["repeat"].tolist() == [9, 10]
    assert runs.evaluated[48] == 12
    assert runs.values("accuracy", "test").shape == (13,)
    epochs, p_min = runs.curve("p_min")
    assert epochs[-1] == 12
    assert p_min.shape == (13, len(epochs))
    assert np.isfinite(p_min).all()


def test_unknown_metric_lists_the_known(runs):
    with pytest.raises(InputError, match=r"'acuracy'.*there are: .*accuracy"):
        runs.curve("acuracy")


def test_not_a_workdir(tmp_path):
    with pytest.raises(InputError, match=r"config\.json is missing"):
        ncjax.load(tmp_path)


def test_features_give_the_recorded_predictions(runs):
    features = runs.features(runs.steps[-1], "test", run=4)
    assert features.shape[0] == len(runs.labels["test"])
    predictions = (features @ runs.frames[4]).argmax(axis=1)
    np.testing.assert_array_equal(predictions, runs.arrays()["test_predictions"][4])
    assert np.mean(predictions == runs.labels["test"]) == runs.values("accuracy", "test")[4]


def test_recomputed_metrics_equal_the_recorded(runs):
    recomputed = runs.recompute()
    assert list(recomputed.evaluated) == runs.steps
    for metric in ("loss", "accuracy", "p_min", "nc1_pinv", "nc4_disagreement"):
        for split in ("train", "test"):
            for step in runs.steps:
                np.testing.assert_array_equal(recomputed.values(metric, split, step), runs.values(metric, split, step))


def test_repeats_spread_exactly_zero(runs):
    repeat = {row["family"]: row for row in family_table(runs)}["repeat"]
    assert repeat["test_accuracy_std"] == 0
    loss = runs.values("loss", "test")[runs.families["repeat"]]
    assert loss[0] == loss[1] == runs.values("loss", "test")[0]  # the first permutation is the identity


def test_table_and_verdict_are_text_for_people(runs):
    text = table_text(family_table(runs)).splitlines()
    assert len(text) == 6
    assert len({len(line) for line in text}) == 1
    assert "Brown-Forsythe" in verdict(runs)
    assert "\n" not in verdict(runs)


def test_summary_writes_table_and_figures(runs, tmp_path):
    said = []
    summarise(runs, tmp_path, say=said.append)
    drawn = sorted((tmp_path / "figures").glob("*.png"))
    assert len(drawn) == 5
    for path in drawn:
        assert f"figure   {path}" in said
        pixels = np.asarray(Image.open(path).convert("L"))
        assert (pixels < 250).mean() > 0.005  # something is drawn
        assert path.with_suffix(".pdf").stat().st_size > 1000
    assert len((tmp_path / "tables" / "families.csv").read_text().splitlines()) == 6
