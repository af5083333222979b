"""Figures: numbers to axes, no arithmetic beyond medians and ranges over runs. Each function returns a Figure."""

import io
from pathlib import Path

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

from ncjax.analysis.families import terminal_phase_start
from ncjax.analysis.runset import RunSet
from ncjax.store.records import write_bytes

# Okabe and Ito's colours, told apart by every common kind of colour blindness
COLORS = {"permutation": "#0072B2", "rotation": "#D55E00", "seed": "#009E73", "repeat": "#000000", "jitter": "#CC79A7"}
OTHER_COLOR = "#56B4E9"
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
    with matplotlib.rc_context(STYLE):
        return [_save(draw(runs), folder / name) for name, draw in drawn.items()]


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
    pooled = {epoch: _off_diagonal(runs.arrays(step)["train_pairwise_margins"]) for step, epoch in steps.items()}
    edges = np.histogram_bin_edges(np.concatenate([margins.ravel() for margins in pooled.values()]), bins=60)
    for (epoch, margins), color in zip(pooled.items(), ("#56B4E9", "#E69F00", "#0072B2"), strict=False):
        left.hist(margins.ravel(), edges, density=True, histtype="stepfilled", color=color, alpha=0.35)
        left.hist(margins.ravel(), edges, density=True, histtype="step", color=color, label=f"epoch {epoch}")
    left.axvline(0, color="0.5", linewidth=0.8)
    left.set(xlabel=r"pairwise margin $\gamma_{y,y'}$", ylabel="density over pairs and runs")
    left.legend()
    final = list(pooled.values())[-1]
    for position, (family, members) in enumerate(runs.families.items()):
        color = COLORS.get(family, OTHER_COLOR)
        parts = right.violinplot(final[members].ravel(), [position], widths=0.8, showmedians=True)
        parts["bodies"][0].set(facecolor=color, alpha=0.35)
        for name in ("cmins", "cmaxes", "cbars", "cmedians"):
            parts[name].set(color=color, linewidth=1)
    right.set(xticks=range(len(runs.families)), xticklabels=runs.families, ylabel=r"$\gamma_{y,y'}$ at the end")
    right.tick_params(axis="x", labelsize="small")
    right.grid(visible=False, axis="x")
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


def _off_diagonal(margins: np.ndarray) -> np.ndarray:
    """(R, C, C) to (R, C (C - 1)), pairs of absent classes left out."""
    flat = margins.reshape(len(margins), -1)
    return flat[:, np.isfinite(flat).all(axis=0)]


def _save(figure: Figure, path: Path) -> Path:
    for suffix in (".pdf", ".png"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix[1:])
        write_bytes(path.with_suffix(suffix), buffer.getvalue())
    return path.with_suffix(".png")
