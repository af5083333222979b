"""Frames: fixed classifiers M (D, C), one column per class, no bias.

For an exact simplex ETF every permutation of the columns equals a rotation (`rotation_of_permutation`), so the paper's
two families probe the same set of optima in two ways. That is not so for other frames.
"""

import math

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from ncjax.errors import InputError

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
            "use a model with larger features"
        )
    if not scale > 0:
        raise InputError(f"the scale of a frame must be above 0, not {scale}")
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


def _procrustes(correlation: np.ndarray) -> np.ndarray:
    """The orthogonal matrix with the largest inner product with `correlation`."""
    u, _, vt = np.linalg.svd(correlation)
    return u @ vt


def coherence(frame: Frame) -> dict[str, float]:
    """How near a frame is to an ETF: smallest and largest norm, largest cosine, rank, tightness.

    `tightness` is the smallest over the largest non-zero singular value: 1 for a tight frame on its span.
    """
    frame = np.asarray(frame, np.float64)
    norms = np.linalg.norm(frame, axis=0)
    cosines = (frame / norms).T @ (frame / norms)
    singular = np.linalg.svd(frame, compute_uv=False)
    rank = int(np.linalg.matrix_rank(frame))
    return {
        "norm_min": float(norms.min()),
        "norm_max": float(norms.max()),
        "largest_cosine": float(cosines[~np.eye(len(cosines), dtype=bool)].max()),
        "rank": rank,
        "tightness": float(singular[rank - 1] / singular[0]),
    }
