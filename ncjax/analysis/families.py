"""Families of runs compared: how much they spread, how much of that is more than the test set's own noise."""

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float

from ncjax.analysis.runset import RunSet

FRAME_FAMILIES = ("permutation", "rotation")


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


def excess_variance(correct: Bool[np.ndarray, "r n"]) -> float:
    """Variance of accuracy over runs above what a finite test set alone would give, in squared accuracy.

    var(accuracy, ddof=1) - R/(R-1) (1/N^2) sum_i p_i (1 - p_i), p_i the share of runs right on image i: the noise of
    runs whose errors are independent given the image. Negative when runs agree on which images they fail more than
    independent ones would. NaN for a single run.
    """
    runs, images = correct.shape
    if runs < 2:
        return float("nan")
    share = correct.mean(axis=0)
    noise = runs / (runs - 1) * np.sum(share * (1 - share)) / images**2
    return float(np.var(correct.mean(axis=1), ddof=1) - noise)


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


def verdict(runs: RunSet) -> str:
    """One plain sentence: how the spread over frames compares with the spread over the controls.

    The test is Brown-Forsythe on deviations from each family's median; a spread is descriptive, not yet a cause.
    """
    accuracy = runs.values("accuracy", "test")
    samples = {family: accuracy[members] for family, members in runs.families.items() if len(members) > 1}
    frames = [family for family in FRAME_FAMILIES if family in samples]
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


def _std(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
