"""Figures: numbers to axes, no arithmetic beyond medians and ranges over runs. Each function returns a Figure."""

import io
from pathlib import Path

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ncjax.analysis.families import crossed_families, crossed_table, terminal_phase_start
from ncjax.analysis.runset import RunSet
from ncjax.store.records import write_bytes

# Okabe and Ito's colours, told apart by every common kind of colour blindness
COLORS = {"permutation": "#0072B2", "rotation": "#D55E00", "seed": "#009E73", "repeat": "#000000", "jitter": "#CC79A7"}
OTHER_COLOR = "#56B4E9"
FAINT = "0.55"  # what may be chance
PREDICTOR_NAMES = {"p_min": r"$p_{\min}$"}
TARGET_NAMES = {"test_error": "test error", "test_loss": "test loss"}
LOSS_NAMES = {"cross_entropy": "cross-entropy (nats)", "mse": "squared error", "dot_regression": "dot-regression loss"}
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
}


def draw_all(runs: RunSet, folder: Path) -> list[Path]:
    """Draw every figure as PNG and PDF; returns the paths of the PNGs."""
    drawn = {
        "loss_and_margin": loss_and_margin,
        "test_accuracy": lambda runs: family_boxes(runs, "accuracy", "test accuracy"),
        "test_loss": lambda runs: family_boxes(runs, "loss", "test " + LOSS_NAMES[runs.config.loss]),
        "pairwise_margins": pairwise_margins,
        "neural_collapse": neural_collapse,
    }
    if crossed_families(runs):
        drawn["crossed_accuracy"] = crossed_accuracy
    with matplotlib.rc_context(STYLE):
        return [_save(draw(runs), folder / name) for name, draw in drawn.items()]


def draw_predictors(table: list[dict], folder: Path, family: str = "pooled") -> list[Path]:
    """Draw `predictor_correlations` as PNG and PDF; returns the path of the PNG, none where no correlation is known."""
    if not _shown(table, family):
        return []
    with matplotlib.rc_context(STYLE):
        return [_save(predictor_correlations(table, family), folder / f"predictors_{family}")]


def loss_and_margin(runs: RunSet) -> Figure:
    """Training loss and smallest pairwise margin against epoch (paper's Figure 3)."""
    figure = Figure(figsize=(7.2, 3.0))
    left, right = figure.subplots(1, 2)
    _family_curves(left, runs, "loss", "train")
    left.set(yscale="log", ylabel="training " + LOSS_NAMES[runs.config.loss])
    _family_curves(right, runs, "p_min", "train")
    right.axhline(0, color="0.5", linewidth=0.8)
    right.set(ylabel=r"smallest pairwise margin $p_{\min}$")
    _finish_curves(figure, (left, right), runs)
    return figure


def neural_collapse(runs: RunSet) -> Figure:
    """NC1 to NC4 on the training split against epoch."""
    panels = {
        "nc1_quotient": ("NC1: within-class variability", r"tr $S_W$ / tr $S_B$"),
        "nc2_etf_error_means": ("NC2: class means against an ETF", "distance of Gram matrices"),
        "nc3_duality_error": ("NC3: class means against the frame", "distance from duality"),
        "nc4_disagreement": ("NC4: prediction against nearest mean", "share that disagrees"),
    }
    figure = Figure(figsize=(7.2, 5.2))
    axes = figure.subplots(2, 2).ravel()
    for axis, (metric, (title, label)) in zip(axes, panels.items(), strict=True):
        _family_curves(axis, runs, metric, "train")
        # a share of images becomes exactly 0, which a log axis cannot show
        axis.set(yscale="linear" if metric == "nc4_disagreement" else "log", ylabel=label)
        axis.set_title(title, fontsize="medium", loc="left")
    _finish_curves(figure, axes, runs)
    return figure


def family_boxes(runs: RunSet, metric: str, label: str) -> Figure:
    """A test metric at the end, one box per family and one point per run (paper's Figures 4 and 5)."""
    values = runs.values(metric, "test")
    figure = Figure(figsize=(4.8, 3.2))
    axis = figure.subplots()
    for position, (family, members) in enumerate(runs.families.items()):
        color = COLORS.get(family, OTHER_COLOR)
        axis.boxplot(
            values[members],
            positions=[position],
            widths=0.55,
            showfliers=False,
            medianprops={"color": color, "linewidth": 2},
            **{part: {"color": color} for part in ("boxprops", "whiskerprops", "capprops")},
        )
        shift = np.linspace(-0.18, 0.18, len(members)) if len(members) > 1 else np.zeros(1)
        axis.scatter(position + shift, values[members], s=12, color=color, alpha=0.7, linewidths=0, zorder=3)
    names = [f"{family}\n({len(members)} runs)" for family, members in runs.families.items()]
    axis.set(xticks=range(len(names)), xticklabels=names, ylabel=label)
    axis.grid(visible=False, axis="x")
    return figure


def pairwise_margins(runs: RunSet) -> Figure:
    """Training margins of all ordered class pairs: how they grow (left), and per family at the end (right)."""
    steps = _three_stages(runs)
    figure = Figure(figsize=(7.2, 3.0))
    left, right = figure.subplots(1, 2)
    pairwise = {epoch: runs.arrays(step)["train_pairwise_margins"] for step, epoch in steps.items()}
    pooled = {epoch: _defined(margins) for epoch, margins in pairwise.items()}
    pooled = {epoch: margins for epoch, margins in pooled.items() if margins.size}
    edges = np.histogram_bin_edges(np.concatenate([np.empty(0), *pooled.values()]), bins=60)
    for (epoch, margins), color in zip(pooled.items(), ("#56B4E9", "#E69F00", "#0072B2"), strict=False):
        left.hist(margins, edges, density=True, histtype="stepfilled", color=color, alpha=0.35)
        left.hist(margins, edges, density=True, histtype="step", color=color, label=f"epoch {epoch}")
    left.axvline(0, color="0.5", linewidth=0.8)
    left.set(xlabel=r"pairwise margin $\gamma_{y,y'}$", ylabel="density over pairs and runs")
    left.legend()
    final = list(pairwise.values())[-1]
    for position, (family, members) in enumerate(runs.families.items()):
        color, margins = COLORS.get(family, OTHER_COLOR), _defined(final[members])
        if not margins.size:  # every run of the family diverged
            continue
        parts = right.violinplot(margins, [position], widths=0.8, showmedians=True)
        parts["bodies"][0].set(facecolor=color, alpha=0.35)
        for name in ("cmins", "cmaxes", "cbars", "cmedians"):
            parts[name].set(color=color, linewidth=1)
    right.set(xticks=range(len(runs.families)), xticklabels=runs.families, ylabel=r"$\gamma_{y,y'}$ at the end")
    right.tick_params(axis="x", labelsize="small")
    right.grid(visible=False, axis="x")
    return figure


def crossed_accuracy(runs: RunSet) -> Figure:
    """Test accuracy by frame, one point per seed, frames in the order of their mean (bar): the crossed design."""
    families, designs = crossed_families(runs), crossed_table(runs)
    figure = Figure(figsize=(min(3.6 * len(families) + 1.2, 7.2), 3.2))
    axes = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
    for axis, crossed, design in zip(axes, families.values(), designs, strict=True):
        order = np.argsort(crossed.values.mean(axis=1))
        values, labels = crossed.values[order], [crossed.frames[index].split("-")[-1] for index in order]
        color = COLORS.get(design["family"], OTHER_COLOR)
        for column, shift in zip(values.T, np.linspace(-0.2, 0.2, values.shape[1]), strict=True):
            axis.scatter(np.arange(len(values)) + shift, column, s=14, color=color, alpha=0.65, linewidths=0, zorder=3)
        axis.hlines(values.mean(axis=1), np.arange(len(values)) - 0.32, np.arange(len(values)) + 0.32, color="0.15")
        axis.axhline(values.mean(), color=FAINT, linestyle=":", linewidth=1, zorder=1)
        axis.set(xticks=range(len(values)), xticklabels=labels, xlabel=f"{design['family']}, by mean over seeds")
        axis.set_title(_share_text(design), fontsize="medium", loc="left")
        axis.grid(visible=False, axis="x")
    axes[0].set(ylabel="test accuracy")
    return figure


def predictor_correlations(table: list[dict], family: str = "pooled") -> Figure:
    """Spearman correlation of every candidate with test error and test loss, and its interval (`across_runs`).

    Sorted by the first target; filled where p after Holm's correction is below 0.05. What was left out of the analysis
    is not drawn; "+2" counts the monotone copies that a candidate stands for.
    """
    shown = _shown(table, family)
    first = next(iter(shown.values()))
    names = sorted(first, key=lambda name: first[name]["spearman"])
    figure = Figure(figsize=(7.2, 1.3 + 0.19 * len(names)))
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, (target, rows) in zip(axes, shown.items(), strict=True):
        for position, name in enumerate(names):
            if name in rows:
                _dot_and_interval(axis, position, rows[name])
        axis.axvline(0, color="0.5", linewidth=0.8, zorder=1)
        axis.set(xlim=(-1.03, 1.03), xlabel=f"Spearman correlation with {TARGET_NAMES.get(target, target)}")
        axis.set(yticks=range(len(names)), ylim=(-0.7, len(names) - 0.3), xticks=(-1, -0.5, 0, 0.5, 1))
        axis.xaxis.set_major_formatter("{x:g}")
    axes[0].set_yticklabels([_predictor_name(first[name]) for name in names])
    _explain_dots(figure, first)
    return figure


def _family_curves(axis, runs: RunSet, metric: str, split: str) -> None:
    """Median over the runs of each family, and their range as a band."""
    epochs, values = runs.curve(metric, split)
    for family, members in runs.families.items():
        color = COLORS.get(family, OTHER_COLOR)
        axis.fill_between(
            epochs, values[members].min(axis=0), values[members].max(axis=0), color=color, alpha=0.12, lw=0
        )
        axis.plot(epochs, np.median(values[members], axis=0), color=color, linewidth=1.3, label=family)


def _finish_curves(figure: Figure, axes, runs: RunSet) -> None:
    """Epoch axis, the start of the terminal phase, one legend for all panels."""
    start = terminal_phase_start(*runs.curve("accuracy", "train"), runs.config.converged.accuracy)
    start = start[np.isfinite(start)]
    for axis in axes:
        if len(start):
            axis.axvspan(start.min(), start.max(), color="0.5", alpha=0.12, lw=0)
            axis.axvline(np.median(start), color="0.3", linestyle=":", label="TPT start (median, range)")
        axis.set(xscale="log", xlabel="epoch")
        axis.xaxis.set_major_formatter("{x:g}")
        if axis.get_yscale() == "log":
            _tick_sparsely(axis.yaxis)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), columnspacing=1.2, handlelength=1.5)


def _shown(table: list[dict], family: str) -> dict[str, dict[str, dict]]:
    """{target: {predictor: row}} of the candidates of a family that have a correlation."""
    shown = {}
    for row in table:
        if row["family"] == family and np.isfinite(row["spearman"]):
            shown.setdefault(row["target"], {})[row["predictor"]] = row
    return shown


def _dot_and_interval(axis, position: int, row: dict) -> None:
    found = row["p_holm"] < 0.05
    color = COLORS["permutation"] if found else FAINT
    axis.hlines(position, row["spearman_low"], row["spearman_high"], color=color, linewidth=1.4, zorder=2)
    face = color if found else "white"
    axis.scatter(row["spearman"], position, s=26, facecolor=face, edgecolor=color, linewidths=1.2, zorder=3)


def _explain_dots(figure: Figure, rows: dict[str, dict]) -> None:
    first = next(iter(rows.values()))
    kinds = (
        (COLORS["permutation"], COLORS["permutation"], "p < 0.05 after Holm's correction"),
        ("white", FAINT, "may be chance"),
    )
    handles = [
        Line2D([], [], color=edge, marker="o", markersize=5, markerfacecolor=face, linewidth=1.4, label=label)
        for face, edge, label in kinds
    ]
    title = f"{first['runs']} runs, {first['looks']} candidates, 95 % intervals"
    title += "; +n: and n monotone copies" if any(row["stands_for"] for row in rows.values()) else ""
    figure.legend(handles=handles, loc="outside upper center", ncols=2, title=title, title_fontsize="medium")


def _predictor_name(row: dict) -> str:
    name = row["predictor"]
    copies = row["stands_for"].count(",") + 1 if row["stands_for"] else 0
    name = PREDICTOR_NAMES.get(name, name.replace("_", " "))
    name = name.replace("nc", "NC", 1) if name.startswith("nc") else name
    return f"{name} (+{copies})" if copies else name


def _share_text(design: dict) -> str:
    if not np.isfinite(design["share"]):
        return "no variance"
    low, high = (f"{100 * design[name]:.0f}" for name in ("share_low", "share_high"))
    chance = f"p = {design['p']:.2g}" if design["p"] >= 0.001 else "p < 0.001"
    return f"frame: {100 * max(design['share'], 0):.0f} % of variance [{low}, {high}], {chance}"


def _tick_sparsely(axis) -> None:
    """Plain numbers at 1, 2 and 5 of each decade when there are few decades, else at each decade."""
    low, high = axis.get_view_interval()
    steps = (1,) if high / low > 30 else (1, 2, 5)
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=steps))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def _three_stages(runs: RunSet) -> dict[int, int]:
    """{step: epoch}: TPT has started for half of the runs, halfway to the end on a log scale, the end."""
    start = terminal_phase_start(*runs.curve("accuracy", "train"), runs.config.converged.accuracy)
    steps, epochs = np.array(list(runs.evaluated)), np.array(list(runs.evaluated.values()))
    first = np.nanmedian(start) if np.isfinite(start).any() else epochs[0]
    wanted = (first, np.sqrt(first * epochs[-1]), epochs[-1])
    chosen = sorted({int(np.argmin(np.abs(epochs - epoch))) for epoch in wanted})
    return {int(steps[index]): int(epochs[index]) for index in chosen}


def _defined(margins: np.ndarray) -> np.ndarray:
    """Margins (R, C, C) as one row, without the diagonal, absent classes and runs that diverged."""
    return margins[np.isfinite(margins)]


def _save(figure: Figure, path: Path) -> Path:
    for suffix in (".pdf", ".png"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix[1:])
        write_bytes(path.with_suffix(suffix), buffer.getvalue())
    return path.with_suffix(".png")
