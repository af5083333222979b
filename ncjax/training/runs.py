"""Which runs there are: families of frames and controls, as a list of specs and stacked arrays."""

from dataclasses import asdict, dataclass

import jax
import numpy as np
from jaxtyping import Float

from ncjax.errors import InputError
from ncjax.theory import frames
from ncjax.training.step import RunInputs

BASE, PERMUTATION, ROTATION = range(3)  # streams of the frame seed


@dataclass(frozen=True)
class RunSpec:
    """One run: its family, its frame's label, its seeds. A jitter seed of 0 leaves the initial weights alone."""

    family: str
    frame: str
    init_seed: int
    order_seed: int
    augment_seed: int
    jitter_seed: int = 0

    def as_dict(self) -> dict:
        return asdict(self)


def run_specs(counts, seed: int, file_frames: int = 0) -> list[RunSpec]:
    """The runs of a config: `counts` is config.runs, `file_frames` how many frames the user's file holds.

    `permutation`, `rotation`: other frames, the same seeds; the first of each is the base frame, untouched.
    `file`: every frame of the file, the same seeds; the first is the base frame.
    `seed`: the base frame, other seeds. `repeat`: all equal. `jitter`: initial weights perturbed by 1e-6.
    `cross_seeds` = S > 1 trains every frame of the first three families with S seeds.
    """
    specs = []
    frame_families = (("permutation", counts.permutations), ("rotation", counts.rotations), ("file", file_frames))
    for family, count in frame_families:
        labels = [f"{family}-{index}" for index in range(count)]
        crossed = [(label, seed + extra) for label in labels for extra in range(counts.cross_seeds)]
        specs += [_spec(family, label, run_seed) for label, run_seed in crossed]
    specs += [_spec("seed", "base", seed + index) for index in range(counts.seeds)]
    specs += [_spec("repeat", "base", seed) for _ in range(counts.repeats)]
    specs += [_spec("jitter", "base", seed, jitter_seed=index + 1) for index in range(counts.jitters)]
    return specs


def _spec(family: str, frame: str, seed: int, jitter_seed: int = 0) -> RunSpec:
    return RunSpec(family, frame, seed, seed, seed, jitter_seed)


def base_frames(frame, num_classes: int, dim: int, seed: int) -> Float[np.ndarray, "k d c"]:
    """What config.frame describes, float64: one frame, or all of a file; the first is the base of the other families.

    Raises:
      InputError: when no simplex ETF fits the dimension, or the file cannot be read or holds frames of another size.
    """
    key = jax.random.fold_in(jax.random.key(seed), BASE)
    if frame.kind == "simplex_etf":
        return frames.simplex_etf(num_classes, dim, scale=frame.scale, key=key)[None]
    if frame.kind != "file":
        return frames.ufm_frame(key, num_classes, dim, objective=frame.kind, scale=frame.scale)[None]
    found = frames.load_frames(frame.path)
    if found.shape[1:] != (dim, num_classes):
        raise InputError(
            f"{frame.path} holds frames of {found.shape[1]} dimensions and {found.shape[2]} classes: model and data "
            f"need {dim} and {num_classes}, shape (K, {dim}, {num_classes})"
        )
    return frame.scale * found


def stacked_frames(specs: list[RunSpec], bases: Float[np.ndarray, "k d c"], seed: int) -> Float[np.ndarray, "r d c"]:
    """The frame of every run, float32; `bases` are those of `base_frames`.

    Raises:
      InputError: when more permutations are asked for than exist.
    """
    key, base = jax.random.key(seed), bases[0]
    labels = {spec.frame for spec in specs}
    found = {"base": base, **{f"file-{i}": frame for i, frame in enumerate(bases)}}
    found |= _permuted(base, _count(labels, "permutation"), jax.random.fold_in(key, PERMUTATION))
    found |= _rotated(base, _count(labels, "rotation"), jax.random.fold_in(key, ROTATION))
    return np.stack([found[spec.frame] for spec in specs]).astype(np.float32)


def stacked_inputs(specs: list[RunSpec], frames_of_runs: Float[np.ndarray, "r d c"]) -> RunInputs:
    """Frames and seeds of every run, (R, ...)."""
    names = ("init_seed", "order_seed", "augment_seed", "jitter_seed")
    return RunInputs(frames_of_runs, *(np.array([getattr(spec, name) for spec in specs], np.uint32) for name in names))


def _count(labels: set[str], family: str) -> int:
    return sum(label.startswith(family + "-") for label in labels)


def _permuted(base, count: int, key) -> dict:
    if count == 0:
        return {}
    orders = frames.distinct_permutations(key, base.shape[1], count)
    return {f"permutation-{i}": np.asarray(frames.permute(base, order)) for i, order in enumerate(orders)}


def _rotated(base, count: int, key) -> dict:
    rotations = [frames.random_rotation(jax.random.fold_in(key, i), base.shape[0]) for i in range(1, count)]
    rotated = [base, *(np.asarray(frames.rotate(base, rotation)) for rotation in rotations)][:count]
    return {f"rotation-{i}": frame for i, frame in enumerate(rotated)}
