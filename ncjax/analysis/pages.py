"""What an analysis writes: CSV tables, figures, and one report.html, for a workdir, several, or foreign features."""

import json
from pathlib import Path

import numpy as np

from ncjax.analysis import features as foreign
from ncjax.analysis.compare import compare
from ncjax.analysis.definitions import definitions
from ncjax.analysis.families import control_table, crossed_table, family_table, verdict
from ncjax.analysis.figures import draw_all, draw_predictors
from ncjax.analysis.predictors import across_epochs, across_runs
from ncjax.analysis.report import Figure, Section, cell_text, write_report
from ncjax.analysis.runset import RunSet
from ncjax.analysis.summary import COLUMNS, aligned, table_cells, table_text
from ncjax.config import flatten
from ncjax.store import records
from ncjax.theory import ufm

PREDICTOR_COLUMNS = ("family", "target", "predictor", "spearman", "spearman_low", "spearman_high", "p_holm", "note")
CAPTIONS = {
    "loss_and_margin": "Training loss and smallest pairwise margin: median and range over the runs of each family.",
    "test_accuracy": "Test accuracy at the end, a point for every run.",
    "test_loss": "Test loss at the end, a point for every run.",
    "pairwise_margins": "Training margins of all ordered pairs of classes: how they grow, and by family at the end.",
    "neural_collapse": "Neural collapse on the training split: median and range over the runs of each family.",
    "crossed_accuracy": "Test accuracy of every frame trained with every seed.",
    "predictors_pooled": "Rank correlation over runs of quantities of the training split with test error and loss; "
    "bars are 95 % bootstrap intervals.",
}


def workdir_page(runs: RunSet, folder: Path, say=print) -> None:
    """Recompute every metric from the checkpoints, then write tables/, figures/ and report.html under `folder`.

    Curves come from the records of training where there are some, else from the checkpoints alone.
    """
    recomputed = runs.recompute(folder)
    shown, note = (runs, agreement(runs, recomputed)) if runs.metrics else (recomputed, "")
    epochs = ", ".join(map(str, recomputed.evaluated.values()))
    say(f"recomputed from the checkpoints of epochs {epochs}{'; ' + note if note else ''}\n")
    extra, extra_bounds = run_extras(shown)
    tables = {
        "families": family_table(shown),
        "controls": control_table(shown),
        "crossed": crossed_table(shown),
        "margins": margin_table(shown),
        "bounds": bound_table(shown, recomputed.bounds + extra_bounds),
        "extras": [
            {"run": run, **{name: float(values[run]) for name, values in extra.items()}}
            for run in range(len(runs.specs))
        ],
        "predictors_across_runs": across_runs(shown, extra),
        "predictors_across_epochs": across_epochs(shown),
    }
    finding = verdict(shown)
    paths = draw_all(shown, folder / "figures") + draw_predictors(tables["predictors_across_runs"], folder / "figures")
    say(table_text(tables["families"]))
    say(f"\n{finding}\n")
    _write_tables(tables, folder, say)
    for path in paths:
        say(f"figure   {path}")
    _write_page(folder, str(runs.workdir), _sections(shown, finding, tables, paths), say)


def features_page(path: Path, folder: Path, say=print) -> None:
    """Metrics, margins and bounds of features from elsewhere."""
    splits, frame = foreign.read_features(path)
    means, found = None, {}
    for split, given in splits.items():
        found[split] = foreign.analyse(given, frame, train_means=means)
        means = found["train"].means
    names = list(dict.fromkeys(name for one in found.values() for name in one.metrics))
    metrics = [{"metric": name, **{split: one.metrics.get(name) for split, one in found.items()}} for name in names]
    bound_list = [
        {"split": split, "bound": name, **_bound_cells(bound._asdict())}
        for split, one in found.items()
        for name, bound in one.bounds.items()
    ]
    say(aligned([{key: cell_text(value) for key, value in row.items()} for row in metrics]) + "\n")
    _write_tables({"metrics": metrics, "bounds": bound_list}, folder, say)
    sections = [Section("Metrics", table=metrics), Section("Bounds", table=bound_list), _definition_section(names)]
    _write_page(folder, str(path), sections, say)


def comparison_page(workdirs: list, folder: Path, say=print) -> None:
    """The family tables of several workdirs in one."""
    table = compare(workdirs)
    cells = [
        {key: cell_text(value) for key, value in row.items() if key not in COLUMNS} | table_cells([row])[0]
        for row in table
    ]
    say(aligned(cells) + "\n")
    _write_tables({"comparison": table}, folder, say)
    _write_page(folder, "Comparison", [Section("Families by cell", table=cells)], say)


def agreement(runs: RunSet, recomputed: RunSet) -> str:
    """How far metrics recomputed from checkpoints are from those recorded in training, relative, at shared steps."""
    worst = 0.0
    for (metric, split), values in recomputed.table.items():
        if (metric, split) not in runs.table:
            continue
        for column, step in enumerate(recomputed.evaluated):
            if step in runs.evaluated:
                recorded = runs.values(metric, split, step)
                gap = np.abs(values[:, column] - recorded) / np.maximum(np.abs(recorded), 1e-6)
                worst = max(worst, float(np.nanmax(gap, initial=0)))
    return f"largest relative difference from the records of training {worst:.1g}"


def run_extras(runs: RunSet) -> tuple[dict[str, np.ndarray], list[dict]]:
    """What needs the features of every run once more, on the training split: {name: (R,)}, and rows of bounds.

    Metrics that the records hold are not given again.
    """
    step, images, labels = runs.steps[-1], runs.images("train"), runs.labels["train"]
    curves = foreign.covering_curves(images, labels, runs.frames.shape[2])
    found = [
        foreign.extras(foreign.Given(runs.features(step, "train", run), labels, images), frame, curves)
        for run, frame in enumerate(runs.frames)
    ]
    names = [name for name in found[0].metrics if (name, "train") not in runs.table]
    rows = [
        {"run": run, "split": "train", "bound": name, **bound._asdict()}
        for run, one in enumerate(found)
        for name, bound in one.bounds.items()
    ]
    return {name: np.array([one.metrics[name] for one in found]) for name in names} | _nonnegative(runs), rows


def _nonnegative(runs: RunSet) -> dict[str, np.ndarray]:
    """The best that non-negative features can do with each frame; empty when those of these runs may be negative."""
    norms = runs.values("max_norm")
    if runs.config.model.features != "relu" or not np.isfinite(norms).any():
        return {}
    optimum = ufm.nonnegative_optimum(runs.frames, norm=float(np.nanmean(norms)))
    return {"nonnegative_loss": np.asarray(optimum.loss, float), "nonnegative_p_min": np.asarray(optimum.p_min, float)}


def margin_table(runs: RunSet) -> list[dict]:
    """The distribution over ordered pairs of classes and runs of the training margins, by family, at the end."""
    pairwise = runs.arrays()["train_pairwise_margins"]
    table = []
    for family, members in runs.families.items():
        gamma = pairwise[members][np.isfinite(pairwise[members])].astype(np.float64)
        quantiles = np.quantile(gamma, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]) if gamma.size else np.full(7, np.nan)
        names = ("min", "q05", "q25", "median", "q75", "q95", "max")
        table.append({"family": family, "pairs": gamma.size, **dict(zip(names, map(float, quantiles), strict=True))})
    return table


def bound_table(runs: RunSet, rows: list[dict]) -> list[dict]:
    """One row per bound and split: over how many runs it is valid and vacuous, its range, what it must bound."""
    keys = dict.fromkeys((row["bound"], row["split"]) for row in rows)
    measured = float(runs.values("accuracy", "test").mean())
    return [_bound_summary([row for row in rows if (row["bound"], row["split"]) == key], measured) for key in keys]


def _bound_summary(rows: list[dict], measured: float) -> dict:
    known = np.array([row["value"] for row in rows if row["valid"]])
    low, middle, high = np.quantile(known, [0, 0.5, 1]) if known.size else (np.nan,) * 3
    return {
        "bound": rows[0]["bound"],
        "split": rows[0]["split"],
        "on": rows[0]["bounds"],
        "valid": sum(row["valid"] for row in rows),
        "vacuous": sum(bool(row["vacuous"]) for row in rows),
        "runs": len(rows),
        "lowest": float(low),
        "median": float(middle),
        "highest": float(high),
        "measured_on_test": measured if rows[0]["bounds"] == "accuracy" else 1 - measured,
        "why_invalid": next((row["reason"] for row in rows if row["reason"]), ""),
        "assumes": "; ".join(rows[0]["assumptions"]),
    }


def _sections(runs: RunSet, finding: str, tables: dict, paths: list[Path]) -> list[Section]:
    figures = {path.stem: Figure(path, CAPTIONS[path.stem]) for path in paths}

    def picked(*names):
        return tuple(figures[name] for name in names if name in figures)

    names = list(dict.fromkeys([*(row["metric"] for row in runs.metrics), *tables["extras"][0]]))
    settings = [{"setting": key, "value": str(value)} for key, value in flatten(runs.config).items()]
    best = [row for row in tables["predictors_across_runs"] if row["family"] == "pooled"]
    return [
        Section(
            "Summary",
            finding=finding,
            table=table_cells(tables["families"]),
            figures=picked("test_accuracy", "test_loss"),
            note="Standard deviations with ddof = 1. The terminal phase (TPT) starts at the first evaluated epoch with "
            "training accuracy 1, in eval mode.",
        ),
        Section(
            "Controls",
            "repeat: nothing differs. jitter: initial weights perturbed by a millionth. seed: other seeds, same frame. "
            "A spread over frames means something only above these.",
            tables["controls"],
        ),
        *_crossed_section(tables["crossed"], picked("crossed_accuracy")),
        Section("Training", figures=picked("loss_and_margin", "neural_collapse")),
        Section("Margins", table=tables["margins"], figures=picked("pairwise_margins")),
        Section(
            "Bounds",
            "A vacuous bound says nothing (above 1 on an error, below 0 on an accuracy); an invalid one is outside its "
            "assumptions and has no value. On training features all of them are diagnostics: the features were fitted "
            "to these samples.",
            [{key: value for key, value in row.items() if key != "assumes"} for row in tables["bounds"]],
        ),
        Section("Assumptions of the bounds", table=_assumptions(tables["bounds"])),
        Section(
            "What predicts test error",
            table=[{key: row[key] for key in PREDICTOR_COLUMNS} for row in best or tables["predictors_across_runs"]],
            figures=picked("predictors_pooled"),
            note="Each family by itself: tables/predictors_across_runs.csv. Over the epochs of each run: "
            "tables/predictors_across_epochs.csv.",
        ),
        Section("Settings", table=settings),
        _environment(runs),
        _definition_section(names),
    ]


def _assumptions(table: list[dict]) -> list[dict]:
    texts = {row["bound"]: row["assumes"] for row in table}
    return [{"bound": bound, "assumes": text} for bound, text in texts.items()]


def _crossed_section(table: list[dict], figures: tuple[Figure, ...]) -> list[Section]:
    text = (
        "Two-way analysis of variance, accuracy = mean + frame + seed + residual: the share of variance due to frames."
    )
    return [Section("Frames crossed with seeds", text, table, figures)] if table else []


def _environment(runs: RunSet) -> Section:
    starts = records.read_json(runs.workdir / "environment.json")["starts"]
    cells = [{key: _flat(value) for key, value in start.items()} for start in starts]
    return Section("Environment", table=[{"start": number, **row} for number, row in enumerate(cells)])


def _definition_section(names: list[str]) -> Section:
    known = definitions()
    return Section("Definitions", table=[{"name": name, **known[name]} for name in names if name in known])


def _write_page(folder: Path, title: str, sections: list[Section], say) -> None:
    write_report(folder / "report.html", title, sections)
    say(f"report   {folder / 'report.html'}")


def _write_tables(tables: dict, folder: Path, say) -> None:
    for name, rows in tables.items():
        if rows:
            records.write_table(folder / "tables" / f"{name}.csv", rows)
            say(f"table    {folder / 'tables' / f'{name}.csv'}")


def _bound_cells(bound: dict) -> dict:
    terms = ", ".join(f"{name} {value:.4g}" for name, value in bound["terms"].items())
    return bound | {"terms": terms, "assumptions": "; ".join(bound["assumptions"])}


def _flat(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return json.dumps(value) if isinstance(value, list) else str(value)
