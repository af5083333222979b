"""The unconstrained feature model: what cross-entropy asks of features and frame when no network is in between.

Everything works on the excess of a sample, the log-sum-exp of the other logits minus its own: cross-entropy is
softplus(excess). The excess and log CE have the same minima as CE, with gradients of order one however small the loss
is; those of CE itself vanish in float32. Source: paper equation (1); Mixon, Parshall, Pi 2020; Zhu et al. 2021.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


class Annealing(NamedTuple):
    """Sharpness of an objective on the sphere: from `start` to `end`, in the last quarter of the steps to `polish`."""

    start: float
    end: float
    polish: float


# From a high sharpness restarts stall. A packing settles to about 1 / polish; the CE frame depends on the last scale.
ANNEALING = {"ufm_ce": Annealing(5, 30, 30), "packing": Annealing(3, 300, 3000)}
SPHERE_RATE = 0.3  # of Adam, divided by the sharpness: the width of the valleys it walks in
MARGIN_SHARPNESS = 1000  # best_p_min is right to log(C-1) / MARGIN_SHARPNESS of norm max ||M_y - M_y'||


class FeatureOptimum(NamedTuple):
    """The best features for each of K fixed frames, and what they reach."""

    features: Float[Array, "k c d"]  # one a class
    loss: Float[Array, " k"]  # mean cross-entropy over classes, nats
    p_min: Float[Array, " k"]  # smallest margin of these features
    best_p_min: Float[Array, " k"]  # the largest that any features could have, whatever their cross-entropy
    global_mean_energy: Float[Array, " k"]  # ||mu_G||^2 / mean ||z||^2
    gap: Float[Array, " k"]  # the loss is at most this far above the optimum


class Flow(NamedTuple):
    """A gradient flow at T recorded times, and where it ended."""

    log_time: Float[Array, " t"]
    log_loss: Float[Array, " t"]  # log of the mean cross-entropy, which itself underflows
    p_min: Float[Array, " t"]
    normalised_margin: Float[Array, " t"]  # p_min / (||M||_F max ||z||)
    frame: Float[Array, "d c"]
    features: Float[Array, "n d"]
    labels: Int[Array, " n"]


@partial(jax.jit, static_argnames=("num_classes", "dim", "objective", "restarts", "steps"))
def sphere_frames(
    key, num_classes: int, dim: int, *, objective: str, restarts: int, steps: int
) -> tuple[Float[Array, "k d c"], Float[Array, " k"]]:
    """Frames on the unit sphere from K = `restarts` random starts, and how good each is (lower is better).

    `packing` minimises the soft largest cosine log-sum-exp(t cos) / t over pairs and is judged by the largest cosine.
    `ufm_ce` minimises cross-entropy at logit scale t over the frame and one feature a class, all of them on the sphere,
    and is judged by log CE at the last scale. Both anneal t upward (`ANNEALING`), all restarts in one program.
    """
    start, end, polish = ANNEALING[objective]
    polishing = steps // 4
    sharpness = jnp.concatenate([jnp.geomspace(start, end, steps - polishing), jnp.geomspace(end, polish, polishing)])
    settling = jnp.concatenate([jnp.ones(steps - polishing), jnp.geomspace(1, 0.1, polishing)])
    loss = _soft_largest_cosine if objective == "packing" else _sphere_log_loss

    def one(key):
        spheres = jax.random.normal(key, (1 if objective == "packing" else 2, dim, num_classes))
        found = _descend_on_spheres(loss, spheres, sharpness, SPHERE_RATE / sharpness * settling)
        return found[0], jnp.max(_cosines(found)) if objective == "packing" else polish * loss(found, polish)

    return jax.vmap(one)(jax.random.split(key, restarts))


def nonnegative_optimum(frames: Float[Array, "k d c"], *, norm: float, steps: int = 200) -> FeatureOptimum:
    """The lowest cross-entropy of features z >= 0, ||z|| <= norm, for each fixed frame: what ReLU features can reach.

    min over z of log(1 + exp(excess)), excess = log sum_{y' != y} exp(<M_y' - M_y, z>): convex, one problem a class,
    solved by projected gradients with restarted momentum (O'Donoghue, Candes 2015). Features t times as long, t large,
    only see the smallest margin: the second solve, for `best_p_min`. Permuting axes or classes changes nothing,
    rotating the frame does.
    Source: ours; the model is the layer-peeled one of Fang et al. 2021 with a fixed frame and z >= 0.

    Args:
      frames: K fixed frames, all solved at once.
      norm: the largest ||z||.
    """
    return _feature_optima(frames, norm, steps, nonnegative=True)


def free_optimum(frames: Float[Array, "k d c"], *, norm: float, steps: int = 200) -> FeatureOptimum:
    """`nonnegative_optimum` without z >= 0. For a simplex ETF of norm alpha its loss is scale_floor(C, alpha, norm)."""
    return _feature_optima(frames, norm, steps, nonnegative=False)


@partial(jax.jit, static_argnames=("num_classes", "dim", "samples_per_class", "steps"))
def gradient_flow(
    key,
    num_classes: int,
    dim: int,
    samples_per_class: int,
    *,
    steps: int = 2000,
    step_size: float = 0.5,
    start_scale: float = 0.1,
) -> Flow:
    """Gradient flow on the unconstrained feature model, frame M and features Z free, no decay (Theorem 4.1 itself).

    d(M, Z)/dt = -grad CE, CE summed over samples. The flow of log CE runs through the same points with the clock
    ds = CE dt, so steps of it, h = step_size N / (1 + ||M||_F^2 + ||Z||_F^2) (midpoint rule), go through the same path
    while log t grows about linearly. M M^T - Z^T Z is conserved. For D >= C-1 the normalised margin has the maximum
    sqrt(C)/(C-1), taken at exact collapse: margins p_min everywhere give C ||M_y - mean M|| max ||z|| >= (C-1) p_min,
    and the squares of these sum to C^2 ||M||_F^2 max ||z||^2 >= C (C-1)^2 p_min^2.
    Source: paper Theorem 4.1, Remark 4.2; Lyu, Li 2020; Ji et al. 2022.

    Args:
      start_scale: standard deviation of the Gaussian entries at t = 0.

    Returns:
      Curves over log t (T = steps), the last frame, features and labels.
    """
    labels = jnp.repeat(jnp.arange(num_classes), samples_per_class)
    own = labels[:, None] == jnp.arange(num_classes)

    def log_loss(state):
        frame, features = state
        return _log_loss(_excess(_matmul(features, frame), own))

    def step(carry, _):
        state, log_time = carry
        squares = sum(jnp.sum(part**2) for part in state)
        length = step_size * len(labels) / (1 + squares)
        half = jax.tree.map(lambda part, slope: part - length / 2 * slope, state, jax.grad(log_loss)(state))
        value, slope = jax.value_and_grad(log_loss)(half)
        state = jax.tree.map(lambda part, slope: part - length * slope, state, slope)
        log_time = jnp.logaddexp(log_time, jnp.log(length / len(labels)) - value)
        return (state, log_time), (log_time, *_flow_values(state, own))

    sizes = ((dim, num_classes), (len(labels), dim))
    state = tuple(
        start_scale * jax.random.normal(part, size) for part, size in zip(jax.random.split(key), sizes, strict=True)
    )
    (state, _), curves = jax.lax.scan(step, (state, -jnp.inf), length=steps)
    return Flow(*curves, *state, labels)


def _excess(logits: Float[Array, "n c"], own: Bool[Array, "n c"]) -> Float[Array, " n"]:
    """log sum_{y' != y} exp(logit_y' - logit_y)."""
    others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), axis=1)
    return others - jnp.sum(jnp.where(own, logits, 0), axis=1)


def _log_loss(excess: Float[Array, " n"]) -> Float[Array, ""]:
    """log of the mean cross-entropy; log softplus(x) is x to float32 precision below -17."""
    log_softplus = jnp.where(excess < -17, excess, jnp.log(jax.nn.softplus(jnp.maximum(excess, -17))))
    return jax.nn.logsumexp(log_softplus) - jnp.log(excess.size)


def _matmul(a, b):
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _unit(columns: Float[Array, "... d c"]) -> Float[Array, "... d c"]:
    return columns / jnp.linalg.norm(columns, axis=-2, keepdims=True)


def _descend_on_spheres(loss, spheres, sharpness, rates):
    """Adam on the directions of all columns; every step ends on the sphere."""
    adam = optax.scale_by_adam()

    def step(carry, now):
        spheres, momentum = carry
        at, rate = now
        gradient = jax.grad(lambda columns: loss(_unit(columns), at))(spheres)
        move, momentum = adam.update(gradient, momentum)
        return (_unit(spheres - rate * move), momentum), None

    spheres = _unit(spheres)
    return jax.lax.scan(step, (spheres, adam.init(spheres)), (sharpness, rates))[0][0]


def _soft_largest_cosine(spheres, sharpness):
    return jax.nn.logsumexp(sharpness * _cosines(spheres)) / sharpness


def _cosines(spheres):
    """Between the columns of the frame; -inf on the diagonal."""
    frame = spheres[0]
    return jnp.where(jnp.eye(frame.shape[1], dtype=bool), -jnp.inf, _matmul(frame.T, frame))


def _sphere_log_loss(spheres, scale):
    """log CE / scale of a frame and one feature a class."""
    frame, features = spheres
    own = jnp.eye(frame.shape[1], dtype=bool)
    return _log_loss(_excess(scale * _matmul(features.T, frame), own)) / scale


@partial(jax.jit, static_argnames=("steps", "nonnegative"))
def _feature_optima(frames, norm, steps, nonnegative):
    frames = jnp.asarray(frames, jnp.result_type(float))
    return jax.vmap(lambda frame: _feature_optimum(frame, norm, steps, nonnegative))(frames)


def _feature_optimum(frame, norm, steps, nonnegative):
    own = jnp.eye(frame.shape[1], dtype=bool)
    squared_distance = jnp.max(_squared_distances(frame))
    longer = MARGIN_SHARPNESS / (norm * jnp.sqrt(squared_distance))

    def gradient(features):
        return jax.grad(lambda z: jnp.sum(_excess(_matmul(z, frame), own)))(features)

    def solve(start, radius):
        def project(features):
            inside = jnp.maximum(features, 0) if nonnegative else features
            return inside * jnp.minimum(1, radius / jnp.maximum(_norms(inside), 1e-30))

        # the curvature of the excess is a variance over M_y' - M_y, at most a quarter of the squared range
        return _accelerate(gradient, project, 4 / squared_distance, project(start), steps)

    features = solve(norm * frame.T / jnp.maximum(_norms(frame.T), 1e-30), norm)
    sharp = _matmul(solve(longer * features, longer * norm), frame) / longer
    return _judge(features, frame, own, gradient(features), norm, nonnegative)._replace(best_p_min=_p_min(sharp, own))


def _accelerate(gradient, project, rate, start, steps):
    """Nesterov's projected gradient, each row restarted where its momentum points uphill."""

    def step(carry, _):
        rows, ahead, inertia = carry
        slope = gradient(ahead)
        new = project(ahead - rate * slope)
        uphill = jnp.sum((ahead - new) * (new - rows), axis=1, keepdims=True) > 0
        inertia = jnp.where(uphill, 1.0, inertia)
        grown = (1 + jnp.sqrt(1 + 4 * inertia**2)) / 2
        return (new, new + (inertia - 1) / grown * (new - rows), grown), None

    return jax.lax.scan(step, (start, start, jnp.ones((len(start), 1))), length=steps)[0][0]


def _judge(features, frame, own, slope, norm, nonnegative) -> FeatureOptimum:
    """The gap is <slope, z - v>, v the feasible point lowest along the slope (Frank-Wolfe): CE is convex in z."""
    logits = _matmul(features, frame)
    excess = _excess(logits, own)
    lowest = -norm * _norms(jnp.minimum(slope, 0) if nonnegative else slope)[:, 0]
    gap = jax.nn.sigmoid(excess) * (jnp.sum(slope * features, axis=1) - lowest)
    return FeatureOptimum(
        features=features,
        loss=jnp.mean(jax.nn.softplus(excess)),
        p_min=_p_min(logits, own),
        best_p_min=jnp.nan,
        global_mean_energy=jnp.sum(features.mean(axis=0) ** 2) / jnp.mean(jnp.sum(features**2, axis=1)),
        gap=jnp.mean(gap),
    )


def _p_min(logits, own):
    """Smallest own logit minus the largest other."""
    return jnp.min(jnp.sum(jnp.where(own, logits, 0), axis=1) - jnp.max(jnp.where(own, -jnp.inf, logits), axis=1))


def _norms(rows):
    return jnp.linalg.norm(rows, axis=1, keepdims=True)


def _squared_distances(frame):
    gram = _matmul(frame.T, frame)
    return jnp.diag(gram)[:, None] + jnp.diag(gram) - 2 * gram


def _flow_values(state, own):
    frame, features = state
    logits = _matmul(features, frame)
    p_min = _p_min(logits, own)
    return _log_loss(_excess(logits, own)), p_min, p_min / (jnp.linalg.norm(frame) * jnp.max(_norms(features)))
