"""Frames: fixed classifiers M (D, C), one column per class, no bias.

For an exact simplex ETF every permutation of the columns equals a rotation (`rotation_of_permutation`), so the paper's
two families probe the same set of optima in two ways. That is not so for other frames.
"""

import math
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from ncjax.errors import InputError
from ncjax.theory.ufm import ANNEALING, sphere_frames

Frame = Float[Array | np.ndarray, "d c"]


def simplex_etf(num_classes: int, dim: int, *, scale: float = 1.0, key=None) -> Float[np.ndarray, "d c"]:
    """Simplex ETF: columns of norm `scale`, all cosines -1/(C-1), sum 0, rank C-1.

    M = scale sqrt(C/(C-1)) U (I - 11^T/C), U (D, C) with orthonormal columns; for D = C-1 an orthogonal V (D, D) times
    an orthonormal basis (D, C) of the complement of 1.
    Source: paper Definition 3.1.

    Args:
      key: draws U or V Haar-distributed; without one U = [I; 0] and V = I (axis-aligned).

    Returns:
      float64, exact to its precision.

    Raises:
      InputError: for fewer than two classes, D < C-1, or a scale that is not positive.
    """
    if num_classes < 2:
        raise InputError(f"a simplex ETF needs at least 2 classes, not {num_classes}")
    if dim < num_classes - 1:
        raise InputError(
            f"no simplex ETF of {num_classes} classes exists in {dim} dimensions: it needs {num_classes - 1}; "
            "use a model with larger features, or a frame of kind ufm_ce or packing"
        )
    _require_scale(scale)
    rotation = np.eye(dim) if key is None else random_rotation(key, dim)
    if dim == num_classes - 1:
        return scale * math.sqrt(num_classes / (num_classes - 1)) * rotation @ _complement_of_ones(num_classes)
    centred = np.eye(num_classes) - 1 / num_classes
    return scale * math.sqrt(num_classes / (num_classes - 1)) * rotation[:, :num_classes] @ centred


def _complement_of_ones(num_classes: int) -> Float[np.ndarray, "c-1 c"]:
    """Orthonormal rows orthogonal to 1 (Helmert)."""
    rows = np.tril(np.ones((num_classes, num_classes)), -1)[1:]
    rows[np.arange(num_classes - 1), np.arange(1, num_classes)] = -np.arange(1, num_classes)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ufm_frame(
    key,
    num_classes: int,
    dim: int,
    *,
    objective: str = "ufm_ce",
    scale: float = 1.0,
    restarts: int = 16,
    steps: int = 1000,
) -> Float[np.ndarray, "d c"]:
    """A frame of norm `scale` for any number of classes, where no simplex ETF exists too (C > D+1).

    `ufm_ce`: cross-entropy minimised over features and frame, both on the sphere, at a logit scale annealed from 5 to
    30; at such a finite scale its largest cosine is a little above the smallest possible. `packing`: the smallest
    largest cosine, softened and annealed. Many random starts in one program, the best is kept: by CE at the last
    scale, or by the largest cosine. For C <= D+1 both find the simplex ETF, for D+2 <= C <= 2D a largest cosine of 0
    (to about 4e-3 and 1e-4). Solved on the CPU where jax has one, so that the accelerator does not decide the frame.
    Source: paper section 5.2; Lu, Steinerberger 2022; Jiang et al. 2023; `theory.ufm`.

    Raises:
      InputError: for an unknown objective, fewer than two classes, one dimension, or counts that are not positive.
    """
    if objective not in ANNEALING:
        raise InputError(f"objective is {objective!r}: it must be one of {', '.join(ANNEALING)}")
    for name, value, least in (("num_classes", num_classes, 2), ("dim", dim, 2), ("restarts", restarts, 1)):
        if value < least:
            raise InputError(f"{name} is {value}: a frame on the sphere needs at least {least}")
    if steps < 8:
        raise InputError(f"steps is {steps}: annealing needs at least 8")
    _require_scale(scale)
    with jax.default_device(_cpu()):
        found, badness = sphere_frames(key, num_classes, dim, objective=objective, restarts=restarts, steps=steps)
    best = np.asarray(found, np.float64)[np.argmin(badness)]
    return scale * best / np.linalg.norm(best, axis=0)


def load_frames(path: str | Path) -> Float[np.ndarray, "k d c"]:
    """The user's own frames, an .npy file of shape (K, D, C), as float64.

    Raises:
      InputError: when the file is missing or damaged, or does not hold finite numbers of that shape.
    """
    path = Path(path).expanduser()
    try:
        with path.open("rb") as opened:
            frames = np.lib.format.read_array(opened, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: it must be an .npy file of frames (K, D, C)") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as .npy of a plain array ({error})") from None
    if frames.ndim != 3 or 0 in frames.shape or frames.shape[2] < 2:
        raise InputError(f"{path} has shape {frames.shape}: it must be (K, D, C), K frames of C >= 2 columns")
    if frames.dtype.kind not in "fiu" or not np.isfinite(frames).all():
        raise InputError(f"{path} holds {frames.dtype} with values that are not finite real numbers")
    return frames.astype(np.float64)


def permute(frame: Frame, permutation: Int[Array | np.ndarray, " c"]) -> Frame:
    """M P: column c of the result is column permutation[c]."""
    return frame[:, permutation]


def rotate(frame: Frame, rotation: Float[Array | np.ndarray, "d d"]) -> Frame:
    """Q M."""
    return rotation @ frame


def random_permutation(key, num_classes: int) -> Int[np.ndarray, " c"]:
    """A uniform permutation."""
    return np.asarray(jax.random.permutation(key, num_classes))


def distinct_permutations(key, num_classes: int, count: int) -> Int[np.ndarray, "n c"]:
    """`count` distinct permutations, the identity first; a larger count keeps the earlier ones.

    Raises:
      InputError: when count > C!.
    """
    if num_classes < 20 and count > math.factorial(num_classes):
        raise InputError(
            f"{num_classes} classes have only {math.factorial(num_classes)} permutations, {count} were asked for"
        )
    found = {tuple(range(num_classes)): None}
    draw = 0
    while len(found) < count:
        found[tuple(random_permutation(jax.random.fold_in(key, draw), num_classes).tolist())] = None
        draw += 1
    return np.array(list(found)[:count], np.int32).reshape(count, num_classes)


def random_rotation(key, dim: int) -> Float[np.ndarray, "d d"]:
    """A Haar-distributed orthogonal matrix of O(D), orthogonal to float64 precision.

    QR of a Gaussian matrix with the signs of R's diagonal moved into Q, which makes it Haar (Mezzadri 2007). The
    Gaussian comes from `key`, the factorisation runs in float64.
    """
    q, r = np.linalg.qr(np.asarray(jax.random.normal(key, (dim, dim)), np.float64))
    return q * np.where(np.diag(r) < 0, -1.0, 1.0)


def rotation_of_permutation(frame: Frame, permutation: Int[Array | np.ndarray, " c"]) -> Float[np.ndarray, "d d"]:
    """The orthogonal Q closest to Q M = M P (Procrustes); equality holds for every exact simplex ETF."""
    source = np.asarray(frame, np.float64)
    return _procrustes(permute(source, np.asarray(permutation)) @ source.T)


def nearest_simplex_etf(frame: Frame) -> Float[np.ndarray, "d c"]:
    """The simplex ETF with the smallest Frobenius distance to `frame`, its scale included (Procrustes).

    Raises:
      InputError: where no simplex ETF exists (D < C-1).
    """
    frame = np.asarray(frame, np.float64)
    dim, num_classes = frame.shape
    base = simplex_etf(num_classes, dim)
    rotated = _procrustes(frame @ base.T) @ base
    return rotated * np.sum(rotated * frame) / num_classes


def _require_scale(scale: float) -> None:
    if not (scale > 0 and math.isfinite(scale)):
        raise InputError(f"the scale of a frame must be finite and above 0, not {scale}")


def _cpu():
    """The CPU device, or None (jax's default) where JAX_PLATFORMS names an accelerator only."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def _procrustes(correlation: np.ndarray) -> np.ndarray:
    """The orthogonal matrix with the largest inner product with `correlation`."""
    u, _, vt = np.linalg.svd(correlation)
    return u @ vt


def coherence(frame: Frame) -> dict[str, float]:
    """How near a frame is to an ETF: smallest and largest norm, largest cosine, rank, tightness.

    `tightness` is the smallest over the largest non-zero singular value: 1 for a tight frame on its span.
    """
    given = np.asarray(frame)
    precision = np.finfo(given.dtype).eps if given.dtype.kind == "f" else 0.0
    frame = given.astype(np.float64)
    norms = np.linalg.norm(frame, axis=0)
    cosines = (frame / norms).T @ (frame / norms)
    singular = np.linalg.svd(frame, compute_uv=False)
    # the smallest singular value of a float32 ETF is rounding, far above the precision of float64
    rank = int(np.sum(singular > singular[0] * max(frame.shape) * max(precision, np.finfo(np.float64).eps)))
    return {
        "norm_min": float(norms.min()),
        "norm_max": float(norms.max()),
        "largest_cosine": float(cosines[~np.eye(len(cosines), dtype=bool)].max()),
        "rank": rank,
        "tightness": float(singular[rank - 1] / singular[0]),
    }
