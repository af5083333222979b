"""Families of runs compared: how much they spread, how much of that is more than the test set's own noise."""

from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int

from ncjax.analysis import statistics
from ncjax.analysis.runset import RunSet
from ncjax.analysis.statistics import excess_variance


class Crossed(NamedTuple):
    """A metric of one family in which every frame was trained with every seed."""

    frames: list[str]  # labels
    seeds: list[int]
    values: Float[np.ndarray, "f s"]
    left_out: int  # frames of which a run diverged


def terminal_phase_start(epochs: np.ndarray, accuracy: Float[np.ndarray, "r e"], reach: float = 1.0) -> np.ndarray:
    """Epoch (R,) at which the terminal phase of training starts: the first evaluated with training accuracy `reach`.

    NaN for a run that never reaches it. Source: Papyan, Han, Donoho 2020.
    """
    reached = accuracy >= reach
    return np.where(reached.any(axis=1), epochs[reached.argmax(axis=1)], np.nan)


def last_epoch_below(epochs: np.ndarray, accuracy: Float[np.ndarray, "r e"], reach: float = 1.0) -> np.ndarray:
    """The last evaluated epoch (R,) with training accuracy below `reach`: a run may leave the terminal phase again.

    0 for a run that was never below.
    """
    below = accuracy < reach
    last = len(epochs) - 1 - below[:, ::-1].argmax(axis=1)
    return np.where(below.any(axis=1), epochs[last], 0)


def converged(runs: RunSet) -> Bool[np.ndarray, " r"]:
    """Which runs fit the training data at the end: accuracy and loss as `config.converged` asks."""
    wanted = runs.config.converged
    return (runs.values("accuracy") >= wanted.accuracy) & (runs.values("loss") <= wanted.loss)


def terminal_phase_values(runs: RunSet, metric: str, split: str) -> Float[np.ndarray, " r"]:
    """A metric of every run at the start of its own terminal phase; NaN where there is none."""
    epochs, values = runs.curve(metric, split)
    start = terminal_phase_start(*runs.curve("accuracy", "train"), runs.config.converged.accuracy)
    return np.array([row[epochs == at][0] if at in epochs else np.nan for row, at in zip(values, start, strict=True)])


def family_table(runs: RunSet) -> list[dict]:
    """One row per family, at the last evaluation; standard deviations with ddof = 1, NaN for a single run."""
    accuracy = runs.values("accuracy", "test")
    correct = runs.arrays()["test_predictions"] == runs.labels["test"]
    reach = runs.config.converged.accuracy
    start = terminal_phase_start(*runs.curve("accuracy", "train"), reach)
    below = last_epoch_below(*runs.curve("accuracy", "train"), reach)
    gain = accuracy - terminal_phase_values(runs, "accuracy", "test")
    fitted = converged(runs)
    table = []
    for family, members in runs.families.items():
        scores = accuracy[members]
        table.append(
            {
                "family": family,
                "runs": len(members),
                "converged": int(fitted[members].sum()),
                "test_accuracy_mean": scores.mean(),
                "test_accuracy_std": _std(scores),
                "test_accuracy_min": scores.min(),
                "test_accuracy_max": scores.max(),
                "excess_variance": excess_variance(correct[members]),
                "test_loss": runs.values("loss", "test")[members].mean(),
                "p_min": runs.values("p_min")[members].mean(),
                "nc1_quotient": runs.values("nc1_quotient")[members].mean(),
                "tpt_start_epoch": _mean(start[members]),
                "last_epoch_below": below[members].max(),
                "tpt_gain": _mean(gain[members]),
            }
        )
    return table


def diverged(runs: RunSet) -> Bool[np.ndarray, " r"]:
    """Which runs end with a loss that is not finite on either split."""
    return ~(np.isfinite(runs.values("loss")) & np.isfinite(runs.values("loss", "test")))


def crossed_families(runs: RunSet, metric: str = "accuracy", split: str = "test") -> dict[str, Crossed]:
    """{family: values of its frames x seeds} at the end, of every family with at least two of both.

    A frame of which a run diverged is left out: the analysis needs the table whole.
    """
    values = np.where(diverged(runs), np.nan, runs.values(metric, split))
    found = {}
    for family, members in runs.families.items():
        grid = frames_by_seeds(runs, members)
        kept = grid[np.isfinite(values[grid]).all(axis=1)]
        if min(kept.shape) > 1:
            frames = [runs.specs[run].frame for run in kept[:, 0]]
            seeds = [runs.specs[run].init_seed for run in kept[0]]
            found[family] = Crossed(frames, seeds, values[kept], len(grid) - len(kept))
    return found


def frames_by_seeds(runs: RunSet, members: Int[np.ndarray, " m"]) -> Int[np.ndarray, "f s"]:
    """These runs as a table, frames x seeds; (M, 1), one run a row, where not every frame has the same seeds."""
    cells = {(runs.specs[run].frame, runs.specs[run].init_seed): run for run in members}
    frames, seeds = (list(dict.fromkeys(key[part] for key in cells)) for part in (0, 1))
    if len(frames) < 2 or not len(members) == len(cells) == len(frames) * len(seeds):
        return members[:, None]
    return np.array([[cells[frame, seed] for seed in seeds] for frame in frames])


def crossed_table(runs: RunSet, metric: str = "accuracy", split: str = "test") -> list[dict]:
    """One row per family crossed with seeds: `statistics.crossed_design`, its size, what it could have detected.

    Empty when no family is crossed (config.runs.cross_seeds = 1). `detectable_std` is the standard deviation over
    frames that would be found with probability 0.8 at level 0.05, `detectable_share` the share of variance it makes.
    """
    table = []
    for family, crossed in crossed_families(runs, metric, split).items():
        design = statistics.crossed_design(crossed.values)
        effect = _detectable_when_crossed(crossed, design)
        total = effect**2 + max(design["var_seed"], 0) + design["var_residual"]
        size = {"family": family, "frames": len(crossed.frames), "seeds": len(crossed.seeds)}
        size |= {"frames_left_out": crossed.left_out}
        share = effect**2 / total if total > 0 else float("nan")
        table.append(size | design | {"detectable_std": effect, "detectable_share": share})
    return table


def control_table(runs: RunSet) -> list[dict]:
    """One row per family, of the runs that did not diverge: do they differ, in which images, from chance?

    `accuracy_mean` of single runs, `vote_accuracy` of their majority vote, `disagreement` of two runs on an image,
    `excess_variance`, Cochran's `q` and its `q_p` (do runs differ at all: true of seeds too), and `detectable_std`: the
    smallest spread over frames that a comparison with the controls finds with probability 0.8 at level 0.05. The
    comparison is with the residual of the crossed design where there is one, else with the seed family by an F test of
    variances (Brown-Forsythe, in `verdict`, trades some of that power for robustness); NaN for a family of one frame.
    """
    predictions, labels = runs.arrays()["test_predictions"], runs.labels["test"]
    sound = ~diverged(runs)
    table = []
    for family, members in runs.families.items():
        members = members[sound[members]]
        row = {"family": family, "runs": len(members)}
        if len(members):
            row |= _agreement(predictions[members], labels)
            table.append(row | {"detectable_std": _detectable(runs, family)})
    return table


def verdict(runs: RunSet) -> str:
    """One plain sentence: do frames change test accuracy more than seeds do?

    From the crossed design where there is one. Else the spread over frames against that over the controls, by
    Brown-Forsythe on deviations from each family's median; a spread is descriptive, not yet a cause.
    """
    crossed = crossed_table(runs)
    return _crossed_verdict(crossed) if crossed else _spread_verdict(runs)


def _crossed_verdict(table: list[dict]) -> str:
    said = []
    for row in table:
        design = f"over {row['frames']} {row['family']}s x {row['seeds']} seeds"
        if not np.isfinite(row["p"]):
            said.append(f"nothing {design}, where test accuracy does not vary at all")
            continue
        chance = "chance alone would give as much" if row["p"] >= 0.05 else "chance alone would hardly give it"
        share, low, high = (100 * max(row[name], 0) for name in ("share", "share_low", "share_high"))
        said.append(
            f"{share:.0f} % {design} (95 % interval {low:.0f} to {high:.0f} %; F test p = {row['p']:.2g}, {chance}; a "
            f"standard deviation over frames of {row['detectable_std']:.4f} would have been found with probability 0.8)"
        )
    return f"Of the variance of test accuracy the frame accounts for {', and for '.join(said)}."


def _spread_verdict(runs: RunSet) -> str:
    accuracy, sound = runs.values("accuracy", "test"), ~diverged(runs)
    kept = {family: members[sound[members]] for family, members in runs.families.items()}
    samples = {family: accuracy[members] for family, members in kept.items() if len(members) > 1}
    frames = [family for family in samples if _frames_of(runs, family) > 1]
    controls = [family for family in samples if family not in frames]
    if not frames or not controls:
        return (
            "Frames cannot be compared with controls: that needs runs.permutations or runs.rotations, and runs.seeds."
        )
    spread = {family: f"{_std(sample):.4f} over {len(sample)} {family}s" for family, sample in samples.items()}
    said = (
        f"Test accuracy has a standard deviation of {' and '.join(spread[family] for family in frames)}, "
        f"against {', '.join(spread[family] for family in controls)}"
    )
    if min(len(samples.get(family, ())) for family in (*frames, "seed")) < 3:
        return said + "; three runs of each family are needed to test whether frames spread more than seeds."
    return f"{said}: {_compare([samples[family] for family in frames], samples['seed'])}."


def _compare(frames: list[np.ndarray], seeds: np.ndarray) -> str:
    ratio = np.sqrt(np.mean([np.var(sample, ddof=1) for sample in frames]) / np.var(seeds, ddof=1))
    centred = [sample - np.median(sample) for sample in (*frames, seeds)]
    p_value = scipy.stats.levene(np.concatenate(centred[:-1]), centred[-1], center="median").pvalue
    said = "which chance alone would give" if p_value >= 0.05 else "which chance alone would hardly give"
    return f"frames spread {ratio:.2f} times as much as seeds, {said} (Brown-Forsythe p = {p_value:.2g})"


def _agreement(predictions, labels) -> dict[str, float]:
    correct = predictions == labels
    q, q_p = statistics.cochran_q(correct)
    return {
        "accuracy_mean": float(correct.mean()),
        "vote_accuracy": statistics.majority_vote_accuracy(predictions, labels),
        "disagreement": statistics.disagreement(predictions),
        "excess_variance": excess_variance(correct),
        "q": q,
        "q_p": q_p,
    }


def _detectable(runs: RunSet, family: str) -> float:
    crossed = crossed_families(runs).get(family)
    if crossed:
        return _detectable_when_crossed(crossed, statistics.crossed_design(crossed.values))
    sound, accuracy = ~diverged(runs), runs.values("accuracy", "test")
    seeds = [run for run in runs.families.get("seed", ()) if sound[run]]
    if _frames_of(runs, family) < 2 or len(seeds) < 2:
        return float("nan")
    trained = int(sound[runs.families[family]].sum())
    return statistics.smallest_detectable_effect(_std(accuracy[seeds]), trained - 1, len(seeds) - 1)


def _detectable_when_crossed(crossed: Crossed, design: dict[str, float]) -> float:
    frames, seeds = crossed.values.shape
    dof = (frames - 1) * (seeds - 1)
    return statistics.smallest_detectable_effect(design["var_residual"] ** 0.5, frames - 1, dof, repeats=seeds)


def _frames_of(runs: RunSet, family: str) -> int:
    return len({runs.specs[run].frame for run in runs.families[family]})


def _std(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
