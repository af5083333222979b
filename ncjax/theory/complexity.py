"""Complexity of features and inputs: the quantities that the bounds plug in.

Rademacher complexity of the norm ball {z -> <v, z> : ||v|| <= B} over a sample z_1..z_n of fixed features:
(1/n) E_sigma sup_v sum_i sigma_i <v, z_i> = (B/n) E_sigma ||sum_i sigma_i z_i||. Convention: 1/n, no factor 2, no
absolute value (which this symmetric class would not notice). B is max ||M_y - M_y'|| for the paper's margins, max
||M_c|| for Mohri et al.; one fixed vector alone has complexity 0. On training features, to which the network was
fitted, it is a diagnostic; held-out features give an estimate. Source: paper Theorem 4.4; Bartlett, Mendelson 2002.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from ncjax.errors import InputError

SIGN_ENTRIES = 2**24  # signs held at once (draws x classes x samples), which bounds the memory, not the result
PAIRS_AT_ONCE = 512


def rademacher(
    key, features: Float[Array | np.ndarray, "n d"], *, draws: int = 64, bound: float = 1.0
) -> Float[Array, ""]:
    """Monte Carlo (B/n) E_sigma ||sum_i sigma_i z_i|| over `draws` sign vectors, B = `bound`.

    At exact collapse of one class (n equal features of norm s): about B s sqrt(2 / (pi n)). NaN for no samples.
    """
    features = jnp.asarray(features)
    sums = _all_sign_sums(key, features, jnp.zeros(len(features), jnp.int32), 1, draws)
    return rademacher_from_sign_sums(sums[:, 0], len(features), bound)


def rademacher_by_class(
    key,
    features: Float[Array | np.ndarray, "n d"],
    labels: Int[Array | np.ndarray, " n"],
    num_classes: int,
    *,
    draws: int = 64,
    bound: float = 1.0,
) -> Float[Array, " c"]:
    """`rademacher` of every class over its own n_y samples; NaN for an absent class. Costs C times `rademacher`."""
    labels = jnp.asarray(labels)
    sums = _all_sign_sums(key, jnp.asarray(features), labels, num_classes, draws)
    return rademacher_from_sign_sums(sums, jnp.bincount(labels, length=num_classes), bound)


def sign_sums(
    key,
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    num_classes: int,
    draws: int,
    mask: Bool[Array, " n"] | None = None,
) -> Float[Array, "k c d"]:
    """sum_i sigma_i z_i by class, for `draws` sign vectors: what one batch adds to a streamed Rademacher complexity.

    The sums of all batches together go to `rademacher_from_sign_sums`. Every batch needs a key of its own (fold in its
    number), else the batches get equal signs and no longer cancel. Samples where `mask` is False do not count.
    """
    belongs = jax.nn.one_hot(labels, num_classes, dtype=features.dtype)
    if mask is not None:
        belongs = belongs * mask[:, None]
    signs = jax.random.rademacher(key, (draws, 1, len(features)), features.dtype) * belongs.T
    # float16 features are summed in float32: thousands of them exceed its range
    wide = jnp.promote_types(features.dtype, jnp.float32)
    return jnp.matmul(signs, features, precision=jax.lax.Precision.HIGHEST, preferred_element_type=wide)


def rademacher_from_sign_sums(
    sums: Float[Array | np.ndarray, "k *c d"], counts: Real[Array | np.ndarray, "*c"] | int, bound=1.0
) -> Float[Array, "*c"]:
    """(B/n) times the mean over draws of ||sum_i sigma_i z_i||; NaN where the count is 0."""
    return _scaled(jnp.linalg.norm(jnp.asarray(sums), axis=-1).mean(axis=0), counts, bound)


def rademacher_energy_bound(
    energy: Real[Array | np.ndarray, "*c"] | float | int, counts: Real[Array | np.ndarray, "*c"] | int, bound=1.0
) -> Float[Array, "*c"]:
    """(B/n) sqrt(sum_i ||z_i||^2) >= the Rademacher complexity (Jensen); `energy` is sum_i ||z_i||^2."""
    return _scaled(jnp.sqrt(jnp.asarray(energy)), counts, bound)


def rademacher_radius_bound(
    rho: Real[Array | np.ndarray, "*c"] | float | int, counts: Real[Array | np.ndarray, "*c"] | int, bound=1.0
) -> Float[Array, "*c"]:
    """B rho / sqrt n >= `rademacher_energy_bound`; rho = max ||z||."""
    return _scaled(jnp.asarray(rho) * jnp.sqrt(jnp.asarray(counts)), counts, bound)


def covering_curve(points: Real[Array | np.ndarray, "n *p"]) -> Float[Array, " n"]:
    """Radii by greedy farthest-point traversal: entry m-1 is the radius at which the first m centres cover all points.

    Non-increasing, 0 at the end. It depends on the inputs alone, not on run, epoch or frame: compute it once for each
    class and look it up for all of them. O(n^2 P) time without an (n, n) matrix; on two CPU cores 10 s for 6000 x 784
    and 45 s for 5000 x 3072. Source: Gonzalez 1985.

    Args:
      points: images of one class, of any shape and type; no points give an empty curve.
    """
    points = jnp.asarray(points)
    return _farthest_point_radii(points.reshape(len(points), -1)) if len(points) else jnp.zeros(0)


def covering_number_from_curve(
    curve: Float[Array | np.ndarray, " n"], radius: Real[Array | np.ndarray, "*r"] | float | int
) -> Int[np.ndarray, "*r"] | int:
    """m(eps), the smallest m with curve[m-1] <= eps.

    It brackets the covering number of the points by closed balls: N(eps) <= m(eps) <= N(eps/2), wherever the balls may
    be centred, because the m centres cover at eps and lie more than eps apart. Of the support that the n points were
    drawn from it says nothing once m is near n (saturation): report m/n.

    Raises:
      InputError: for an empty curve or a radius that is negative or NaN.
    """
    curve, radius = np.asarray(curve, np.float64), np.asarray(radius, np.float64)
    if not len(curve) or not np.all(radius >= 0):
        raise InputError(f"a covering number needs points and a radius of 0 or more, not {len(curve)} and {radius}")
    found = len(curve) - np.searchsorted(curve[::-1], radius, side="right") + 1
    return found if found.ndim else int(found)


def covering_number(
    points: Real[Array | np.ndarray, "n *p"], radius: Real[Array | np.ndarray, "*r"] | float | int
) -> Int[np.ndarray, "*r"] | int:
    """`covering_number_from_curve` of the points' own curve: m with N(eps) <= m <= N(eps/2)."""
    return covering_number_from_curve(covering_curve(points), radius)


def lipschitz(
    inputs: Real[Array | np.ndarray, "n *p"],
    features: Float[Array | np.ndarray, "n d"],
    *,
    key,
    pairs: int = 65_536,
) -> Float[Array, ""]:
    """Largest ||f(a) - f(b)|| / ||a - b|| over `pairs` random pairs: a lower bound on the Lipschitz constant L.

    So a margin divided by it errs optimistically. Pairs of identical inputs are skipped; NaN when no others were drawn.

    Raises:
      InputError: for fewer than two samples.
    """
    inputs, features = jnp.asarray(inputs), jnp.asarray(features)
    if len(inputs) < 2:
        raise InputError(f"a Lipschitz estimate needs at least 2 samples, not {len(inputs)}")
    return _largest_ratio(key, inputs.reshape(len(inputs), -1), features, pairs)


@partial(jax.jit, static_argnames=("num_classes", "draws"))
def _all_sign_sums(key, features, labels, num_classes: int, draws: int) -> Float[Array, "k c d"]:
    """`sign_sums` of samples that do not fit at once with their signs: by chunks, the features never copied."""
    size = max(1, min(SIGN_ENTRIES // (draws * num_classes), len(features)))
    whole = len(features) // size

    def add(index, total):
        chunk = (jax.lax.dynamic_slice_in_dim(values, index * size, size) for values in (features, labels))
        return total + sign_sums(jax.random.fold_in(key, index), *chunk, num_classes, draws)

    rest = slice(whole * size, None)
    last = sign_sums(jax.random.fold_in(key, whole), features[rest], labels[rest], num_classes, draws)
    return jax.lax.fori_loop(0, whole, add, last) if whole else last


def _scaled(norms, counts, bound):
    counts = jnp.asarray(counts)
    return jnp.where(counts > 0, bound * norms / jnp.maximum(counts, 1), jnp.nan)


@jax.jit
def _farthest_point_radii(points: Real[Array, "n p"]) -> Float[Array, " n"]:
    def step(carry, _):
        nearest, newest = carry
        # differences, not norms minus products: a duplicate is at distance 0 exactly
        nearest = jnp.minimum(nearest, jnp.sum((_wide(points) - _wide(points[newest])) ** 2, axis=1))
        farthest = jnp.argmax(nearest)
        return (nearest, farthest), nearest[farthest]

    start = jnp.full(len(points), jnp.inf, _wide(points[:0]).dtype)
    return jnp.sqrt(jax.lax.scan(step, (start, jnp.argmax(start)), length=len(points))[1])


@partial(jax.jit, static_argnames="pairs")
def _largest_ratio(key, inputs, features, pairs: int) -> Float[Array, ""]:
    first_key, offset_key = jax.random.split(key)
    first = jax.random.randint(first_key, (pairs,), 0, len(inputs))
    second = (first + jax.random.randint(offset_key, (pairs,), 1, len(inputs))) % len(inputs)  # never the same sample

    def ratio(pair):
        a, b = pair
        apart = jnp.linalg.norm(_wide(inputs[a]) - _wide(inputs[b]))
        return jnp.where(apart > 0, jnp.linalg.norm(_wide(features[a]) - _wide(features[b])) / apart, -jnp.inf)

    largest = jax.lax.map(ratio, (first, second), batch_size=min(PAIRS_AT_ONCE, pairs)).max()
    return jnp.where(jnp.isneginf(largest), jnp.nan, largest)


def _wide(values):
    """At least float32: differences of uint8 would wrap around."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
