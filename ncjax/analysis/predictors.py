"""What orders runs, and epochs, by test error: rank correlations of every candidate, corrected for many looks."""

import numpy as np
from jaxtyping import Float, Int

from ncjax.analysis.families import diverged, frames_by_seeds
from ncjax.analysis.runset import RunSet
from ncjax.analysis.statistics import bootstrap_counts, holm, permutation_p, rank_correlations
from ncjax.theory.sparsity import hoyer, zero_share

MIN_RUNS = 5  # below that no order is surprising: 4 runs agree fully in 2 of 24 cases
ROUNDING = 1e-6  # relative; what differs less differs by float32 arithmetic
FRAME_METRICS = ("frame", "frame_norm")  # endings of metrics of the frame alone
PHASES = ("all epochs", "terminal phase")

Candidates = dict[str, Float[np.ndarray, " r"]]


def distinct(candidates: Candidates) -> dict[str, list[str]]:
    """{first of its kind: its monotone copies}, |rho| = 1; a copy that falls where the first rises is "-name"."""
    kept = {}
    for name, values in candidates.items():
        for first in kept:
            rho = rank_correlations(candidates[first], values)[0][0]
            if abs(rho) > 1 - 1e-9:
                kept[first].append(name if rho > 0 else "-" + name)
                break
        else:
            kept[name] = []
    return kept


def predictor_table(
    candidates: Candidates,
    target: Float[np.ndarray, " r"],
    *,
    groups: list[Int[np.ndarray, "f s"]] | None = None,
    confidence: float = 0.95,
    resamples: int = 2_000,
    permutations: int = 20_000,
    seed: int = 0,
) -> list[dict]:
    """Rank correlation of every candidate with the target over runs, the strongest first.

    `p` is that of a permutation test: right at any number of runs and with ties, where the usual t approximation calls
    five runs in one order certain. `p_holm` is corrected for all candidates of this table (`looks`) by Holm's method:
    a single false predictor is one too many, and the candidates depend on each other in unknown ways. Intervals are
    quantiles over bootstrap samples of the runs; at |rho| = 1 they have no width, so there trust p alone.

    Left out with a `note`: candidates that are constant or not finite for every run. Copies are dropped before the
    correction; `stands_for` names them. Rows of runs without a finite target are left out; fewer than `MIN_RUNS` runs,
    or a constant target, give a single row "all" that says so.

    Args:
      candidates: {name: value of every run}.
      target: test error, say.
      groups: indices of the runs to use, frames x seeds for a crossed family, (F, 1) for independent runs, by default
        all. Group means are removed first; runs are permuted and drawn within groups, whole rows and columns, so that
        differences between groups, or effects of frames and of seeds, do not pass for a correlation.
    """
    groups = [np.arange(len(target))[:, None]] if groups is None else groups
    whole = [grid[np.isfinite(target[grid]).all(axis=1)] for grid in groups]
    used, grids = _joined([grid for grid in whole if len(grid)])
    if len(used) < MIN_RUNS:
        return [_row("all", len(used), note=f"{len(used)} different runs, fewer than {MIN_RUNS}")]
    target = _centred(target[used], grids)
    if target is None:
        return [_row("all", len(used), note="the target is constant")]
    centred = {name: _centred(values[used], grids) for name, values in candidates.items()}
    notes = {name: _why(candidates[name][used]) for name, values in centred.items() if values is None}
    # copies by the values themselves: removing means keeps no order but that of each group
    copies = distinct({name: candidates[name][used] for name, values in centred.items() if values is not None})
    kept = {name: centred[name] for name in copies}
    generator = np.random.default_rng(seed)
    p_values = permutation_p(list(kept.values()), target, grids, permutations, generator)
    counts = bootstrap_counts(grids, resamples, generator)
    rows = []
    for (name, values), p, p_holm in zip(kept.items(), p_values, holm(p_values), strict=True):
        found = _with_intervals(values, target, counts, confidence) | {"p": float(p), "p_holm": float(p_holm)}
        rows.append(_row(name, len(used), **found, looks=len(kept), stands_for=", ".join(copies[name])))
    rows.sort(key=lambda row: -abs(row["spearman"]))
    return rows + [_row(name, len(used), note=note) for name, note in notes.items()]


def across_runs(runs: RunSet, extra: Candidates | None = None, **settings) -> list[dict]:
    """`predictor_table` of each family and of all of them "pooled", for test error and test loss at the end.

    Candidates are every metric of the training split, the sparsity of the frame and `extra` (bounds, say). Equal runs
    (same frame, same seeds) count once; families of fewer than `MIN_RUNS` are left out of the pool, means of families
    are removed. Each family, pool and target is corrected by itself: decide beforehand which one is asked.
    """
    candidates = end_candidates(runs) | {name: _float32_steps(name, values) for name, values in (extra or {}).items()}
    targets = {"test_error": 1 - runs.values("accuracy", "test"), "test_loss": runs.values("loss", "test")}
    lost = diverged(runs)
    table = []
    for family, groups in _pools(runs).items():
        for name, target in targets.items():
            rows = predictor_table(candidates, np.where(lost, np.nan, target), groups=groups, **settings)
            table += [{"family": family, "target": name, **row} for row in rows]
    return table


def across_epochs(runs: RunSet, extra: dict[str, Float[np.ndarray, "r e"]] | None = None) -> list[dict]:
    """Rank correlation over the epochs of a run with test error and test loss: median and range over runs.

    Over all evaluated epochs, which mostly shows that training helps everything, and over those of the terminal phase
    alone, which is what the paper's claim is about. No p value: epochs of a run are not independent. `runs` counts
    different runs with `MIN_RUNS` finite evaluations in the phase among which neither side is constant.
    """
    curves = {name: runs.curve(name)[1] for name in _train_metrics(runs)} | (extra or {})
    targets = {"test_error": 1 - runs.curve("accuracy", "test")[1], "test_loss": runs.curve("loss", "test")[1]}
    terminal = np.maximum.accumulate(runs.curve("accuracy")[1] >= runs.config.converged.accuracy, axis=1)
    sound = np.isfinite(runs.curve("loss")[1]) & np.isfinite(targets["test_loss"])
    once = _once(runs, np.arange(len(runs.specs)))
    table = []
    for phase, inside in zip(PHASES, (sound, sound & terminal), strict=True):
        for target, reached in targets.items():
            for name, values in curves.items():
                found = _over_epochs(_float32_steps(name, values)[once], reached[once], inside[once])
                table.append({"phase": phase, "target": target, "predictor": name, **found})
    return table


def end_candidates(runs: RunSet) -> Candidates:
    """Every metric of the training split at the end, and the sparsity of the frames."""
    metrics = {name: _float32_steps(name, runs.values(name)) for name in _train_metrics(runs)}
    return metrics | frame_sparsity(runs.frames)


def frame_sparsity(frames: Float[np.ndarray, "r d c"]) -> Candidates:
    """Hoyer sparsity of the columns of each frame, mean over classes, and share of zeros among its entries.

    Features go through `theory.sparsity.hoyer` and `zero_share` themselves. Both are the same for all permutations of a
    frame. Source: paper section 4.3, on rotation and sparsity.
    """
    columns = [frame.T for frame in frames]
    measures = {"frame_hoyer": hoyer, "frame_zeros": zero_share}
    found = {name: np.array([np.mean(measure(part)) for part in columns]) for name, measure in measures.items()}
    return {name: np.round(values.astype(np.float64), 6) for name, values in found.items()}


def _row(name: str, runs: int, **found) -> dict:
    undefined = dict.fromkeys(("spearman", "spearman_low", "spearman_high", "kendall", "kendall_low"), float("nan"))
    undefined |= dict.fromkeys(("kendall_high", "p", "p_holm"), float("nan"))
    return {"predictor": name, "runs": runs, **undefined, "looks": 0, "stands_for": "", "note": ""} | found


def _with_intervals(values, target, counts, confidence: float) -> dict[str, float]:
    tail, found = (1 - confidence) / 2, {}
    once, drawn = rank_correlations(values, target), rank_correlations(values, target, counts)
    for name, point, sample in zip(("spearman", "kendall"), once, drawn, strict=True):
        # a sample of one run drawn again and again has no order
        low, high = np.nanquantile(sample, [tail, 1 - tail])
        found |= {name: float(point[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def _joined(groups: list) -> tuple[np.ndarray, list[np.ndarray]]:
    """(indices of all runs, the same groups as positions in it)."""
    used = np.concatenate([np.empty(0, int), *(grid.ravel() for grid in groups)])
    starts = np.cumsum([0, *(grid.size for grid in groups)])
    return used, [start + np.arange(grid.size).reshape(grid.shape) for start, grid in zip(starts, groups, strict=False)]


def _centred(values, grids) -> Float[np.ndarray, " n"] | None:
    """Values minus the mean of their group; None when not all are finite, or nothing but rounding is left."""
    if not np.isfinite(values).all():
        return None
    left = np.concatenate([values[grid].ravel() - values[grid].mean() for grid in grids])
    return left if np.abs(left).max() > ROUNDING * np.abs(values).max() else None


def _why(values) -> str:
    missing = int((~np.isfinite(values)).sum())
    return f"not finite in {missing} of {len(values)} runs" if missing else "constant"


def _train_metrics(runs: RunSet) -> list[str]:
    return list(dict.fromkeys(row["metric"] for row in runs.metrics if row["split"] == "train"))


def _float32_steps(name: str, values):
    """Metrics of the frame are rounding around 0 on an exact ETF; in steps of 1e-6 these are constant, as they are."""
    return np.round(values, 6) if name.endswith(FRAME_METRICS) else values


def _pools(runs: RunSet) -> dict[str, list[Int[np.ndarray, "f s"]]]:
    """{family, or "pooled": groups of runs}, equal runs once."""
    families = {family: _once(runs, members) for family, members in runs.families.items()}
    pools = {family: [frames_by_seeds(runs, members)] for family, members in families.items()}
    large = [members for members in families.values() if len(members) >= MIN_RUNS]
    if large:
        first = _once(runs, np.concatenate(large))
        pools["pooled"] = [frames_by_seeds(runs, members[np.isin(members, first)]) for members in large]
    return pools


def _once(runs: RunSet, members: np.ndarray) -> np.ndarray:
    """The first of every set of equal runs: the base frame with the base seed is in several families."""
    first = {}
    for run in members:
        spec = runs.specs[run]
        seeds = spec.init_seed, spec.order_seed, spec.augment_seed, spec.jitter_seed
        first.setdefault((runs.frames[run].tobytes(), seeds), run)
    return np.array(list(first.values()))


def _over_epochs(values, target, inside) -> dict:
    found = []
    for x, y, kept in zip(values, target, inside & np.isfinite(values), strict=True):
        if kept.sum() >= MIN_RUNS:
            found.append(np.concatenate(rank_correlations(x[kept], y[kept])))
    found = np.array([pair for pair in found if np.isfinite(pair).all()]).reshape(-1, 2)
    row = {"runs": len(found)}
    for name, sample in zip(("spearman", "kendall"), found.T, strict=True):
        low, middle, high = np.quantile(sample, [0, 0.5, 1]) if len(sample) else (float("nan"),) * 3
        row |= {f"{name}_median": float(middle), f"{name}_min": float(low), f"{name}_max": float(high)}
    return row | {"note": "" if len(found) else "constant, or too few finite evaluations"}
