"""From what a sweep brought to the host to numbers: every metric of one run on one split, float64."""

import jax
import numpy as np

from ncjax.theory.collapse import neural_collapse
from ncjax.theory.margins import pairwise_margins_from_stats
from ncjax.training.evaluate import Evaluation, Sweep


def measure(sweep: Sweep, labels: np.ndarray, frame: np.ndarray) -> dict[str, float]:
    """`loss`, `accuracy`, `p_min`, `mean_margin` and the neural-collapse metrics of one run on one split."""
    disagreement = float(np.mean(sweep.predictions != sweep.nearest))
    return {
        "loss": float(np.mean(sweep.losses, dtype=np.float64)),
        "accuracy": float(np.mean(sweep.predictions == labels)),
        "p_min": float(np.min(sweep.margins)),
        "mean_margin": float(np.mean(sweep.margins, dtype=np.float64)),
        **neural_collapse(sweep.stats, frame, disagreement=disagreement),
    }


def measure_runs(evaluation: Evaluation, labels: dict, frames: np.ndarray) -> list[dict]:
    """Records without step and epoch: (run, split, metric, value) of a stacked (R, ...) evaluation on the host."""
    rows = []
    for run, frame in enumerate(frames):
        for split, stacked in evaluation._asdict().items():
            sweep = jax.tree.map(lambda leaf, run=run: leaf[run], stacked)
            values = measure(sweep, labels[split], frame)
            rows += [{"run": run, "split": split, "metric": name, "value": value} for name, value in values.items()]
    return rows


def arrays_of(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """What does not fit in rows: pairwise margins (R, C, C) and predictions (R, N) of both splits."""
    arrays = {}
    for split, sweep in evaluation._asdict().items():
        pairwise = [pairwise_margins_from_stats(_run(sweep.stats, run)) for run in range(len(sweep.losses))]
        arrays[f"{split}_pairwise_margins"] = np.stack([np.asarray(p, np.float32) for p in pairwise])
        arrays[f"{split}_predictions"] = sweep.predictions.astype(np.uint16)
    return arrays


def _run(tree, run: int):
    return jax.tree.map(lambda leaf: leaf[run], tree)
