"""From workdirs and from foreign features to pages."""

import csv
import json

import numpy as np
import pytest

import ncjax
from ncjax.analysis import pages
from ncjax.analysis.definitions import definitions
from ncjax.analysis.features import Given, analyse, covering_curves, extras, read_features
from ncjax.config import validate
from ncjax.errors import InputError
from ncjax.theory.frames import simplex_etf
from ncjax.training.train import train

from .. import reference
from .conftest import small_config


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def analysed(workdir, tmp_path_factory):
    said, folder = [], tmp_path_factory.mktemp("analysis")
    pages.workdir_page(ncjax.load(workdir), folder, said.append)
    return folder, said


def test_workdir_page_has_tables_figures_and_a_report(analysed, runs):
    folder, said = analysed
    assert {path.stem for path in (folder / "tables").glob("*.csv")} == {
        "families", "controls", "margins", "bounds", "extras", "predictors_across_runs", "predictors_across_epochs"
    }  # fmt: skip
    assert said[-1] == f"report   {folder / 'report.html'}"
    page = (folder / "report.html").read_text()
    for part in ("Summary", "Controls", "Bounds", "What predicts test error", "Definitions", "optimizer.momentum"):
        assert part in page
    assert page.count("data:image/png") == len(list((folder / "figures").glob("*.png"))) >= 5
    for path in (folder / "figures").glob("*.png"):
        assert path.with_suffix(".pdf").exists()


def test_every_recorded_metric_has_a_definition(analysed, runs):
    names = {row["metric"] for row in runs.metrics} | set(read_csv(analysed[0] / "tables" / "extras.csv")[0]) - {"run"}
    assert names <= definitions().keys()
    assert all(known["what"] for known in definitions().values())


def test_bounds_table_covers_every_bound(analysed):
    rows = read_csv(analysed[0] / "tables" / "bounds.csv")
    found = {(row["bound"], row["split"]) for row in rows}
    assert {("margin_full", "train"), ("cdnv", "test"), ("covering_safe", "train"), ("hoeffding", "train")} <= found
    for row in rows:
        assert int(row["valid"]) == 0 or float(row["median"]) == float(row["median"])
        assert row["assumes"]


def test_recomputed_rows_agree_with_the_records(analysed):
    assert analysed[1][0].split("training ")[1].split()[0] == "0"


def test_a_run_that_diverged_does_not_stop_the_analysis_of_the_others(tmp_path):
    frames = np.stack([simplex_etf(10, 64), 1e18 * simplex_etf(10, 64)])
    np.save(tmp_path / "frames.npy", frames)
    config = small_config()
    config.update_from_flattened_dict({"frame.kind": "file", "frame.path": str(tmp_path / "frames.npy"), "epochs": 2})
    train(validate(config), tmp_path / "run")
    runs = ncjax.load(tmp_path / "run")
    lost = np.flatnonzero(~np.isfinite(runs.values("loss")))
    assert [runs.specs[run].frame for run in lost] == ["file-1"]
    said = []
    pages.workdir_page(runs, tmp_path / "analysis", said.append)
    assert said[-1].startswith("report")
    rows = {int(row["run"]): row for row in read_csv(tmp_path / "analysis" / "tables" / "extras.csv")}
    assert np.isnan(float(rows[lost[0]]["svm_margin"]))
    assert float(rows[0]["svm_margin"]) >= 0
    bounds = {row["bound"]: row for row in read_csv(tmp_path / "analysis" / "tables" / "bounds.csv")}
    assert int(bounds["cdnv"]["valid"]) == len(runs.specs) - 1


def test_comparison_names_what_differs(workdir, tmp_path, analysed):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "runs.json", "frames.npy", "labels.npz", "metrics.csv", "environment.json"):
        (other / name).write_bytes((workdir / name).read_bytes())
    (other / "arrays").symlink_to(workdir / "arrays")
    config = json.loads((other / "config.json").read_text())
    config["optimizer"]["weight_decay"] = 0.25
    (other / "config.json").write_text(json.dumps(config))
    table = ncjax.compare([workdir, other])
    assert len(table) == 10
    assert {row["optimizer.weight_decay"] for row in table} == {5e-4, 0.25}
    assert not {"seed", "epochs"} & table[0].keys()
    pages.comparison_page([workdir, other], tmp_path / "page", say=lambda _: None)
    assert "weight decay" in (tmp_path / "page" / "report.html").read_text()
    with pytest.raises(InputError, match="at least two"):
        ncjax.compare([workdir])


def collapsed(num_classes=4, dim=6, count=40, noise=0.05):
    generator = np.random.default_rng(0)
    frame = simplex_etf(num_classes, dim)
    labels = np.arange(count) % num_classes
    return 5 * frame.T[labels] + noise * generator.standard_normal((count, dim)), labels, frame


def test_foreign_features_agree_with_loops_in_float64():
    features, labels, frame = collapsed()
    found = analyse(Given(features, labels), frame)
    for name, expected in reference.neural_collapse(features, labels, frame).items():
        assert found.metrics[name] == pytest.approx(expected, rel=2e-3, abs=1e-5), name
    np.testing.assert_allclose(found.pairwise, reference.pairwise_margins(features, labels, frame), rtol=1e-4)
    assert found.metrics["accuracy"] == 1
    assert 0.9 < found.metrics["svm_share"] <= 1 + 1e-3
    assert "bound_covering_paper" not in found.metrics  # no inputs were given


def test_extras_use_the_inputs_where_there_are_some():
    features, labels, frame = collapsed()
    given = Given(features, labels, features * 3)
    metrics, bounds = extras(given, frame, covering_curves(given.inputs, labels, 4))
    assert metrics["lipschitz"] == pytest.approx(1 / 3, rel=1e-3)
    assert bounds["covering_paper"].value >= bounds["covering_safe"].value


def test_features_page_of_an_exported_run(runs, tmp_path):
    path = tmp_path / "features.npz"
    runs.export_features(path, 4)
    said = []
    pages.features_page(path, tmp_path / "page", said.append)
    rows = {row["metric"]: row for row in read_csv(tmp_path / "page" / "tables" / "metrics.csv")}
    for name in ("accuracy", "p_min", "nc1_pinv", "nc4_disagreement"):
        for split in ("train", "test"):
            assert float(rows[name][split]) == pytest.approx(runs.values(name, split)[4], rel=1e-3, abs=1e-6)
    assert "lipschitz" in rows
    with pytest.raises(InputError, match="run 99"):
        runs.export_features(path, 99)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": np.zeros((40, 5))}, r"must be \(N, D\)"),
        ({"labels": np.zeros(39, int)}, "not 40 integers"),
        ({"labels": np.zeros(40)}, "not 40 integers"),
        ({"labels": np.full(40, 4)}, "between 0 and 3"),
        ({"features": np.full((40, 6), np.nan)}, "finite"),
        ({"images": np.zeros((3, 2))}, "3 images"),
        ({"frame": None}, "lacks frame"),
    ],
)
def test_foreign_features_that_do_not_fit_are_refused(tmp_path, change, said):
    features, labels, frame = collapsed()
    arrays = {"features": features, "labels": labels, "frame": frame} | change
    path = tmp_path / "features.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InputError, match=said):
        read_features(path)
