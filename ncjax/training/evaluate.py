"""One sweep over a split in eval mode, for ONE run: statistics, margins and predictions in a single network pass.

`sweep` takes the features from a network, `sweep_features` from an array; both see each feature once.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ncjax.theory import complexity, margins, sparsity, stats
from ncjax.training.losses import LOSSES, logits
from ncjax.training.step import Recipe, RunState, Split, features

BATCH_SIZE = 200  # images per network pass; more does not run faster on CPU and only costs memory
FEATURES_BATCH_SIZE = 4096  # of given features: merging statistics costs as much as many of them
SIGN_DRAWS = 16  # of the Rademacher complexity; the same signs for all runs, which makes them comparable


class Sweep(NamedTuple):
    """What one run does on one split; the arrays over samples in the order of the split."""

    losses: Float[Array, " n"]
    predictions: Int[Array, " n"]
    nearest: Int[Array, " n"]  # the class whose TRAINING mean is nearest to the features
    margins: Float[Array, " n"]  # smallest own logit minus another
    hoyer: Float[Array, " n"]  # sparsity of the features
    zeros: Float[Array, " n"]  # share of features that are exactly 0
    stats: stats.ClassStats
    rademacher: Float[Array, ""]  # complexity of classifiers of norm at most 1, on all samples
    class_rademacher: Float[Array, " c"]  # the same by class, on its own samples


OVER_SAMPLES = ("losses", "predictions", "nearest", "margins", "hoyer", "zeros")


class Evaluation(NamedTuple):
    """Both splits of one run."""

    train: Sweep
    test: Sweep


def evaluate(
    recipe: Recipe,
    state: RunState,
    frame: Float[Array, "d c"],
    train: Split,
    test: Split,
    *,
    keep_features: bool,
) -> Evaluation:
    """Sweep the training split, then the test split.

    The nearest training mean is known only after the training sweep. `keep_features` holds the features (N, D) until
    then; without it the network runs over the training split a second time.
    """
    train_sweep = sweep(recipe, state, frame, train, keep_features=keep_features)
    test_sweep = sweep(recipe, state, frame, test, means=train_sweep.stats.means)
    return Evaluation(train_sweep, test_sweep)


def sweep(
    recipe: Recipe,
    state: RunState,
    frame: Float[Array, "d c"],
    split: Split,
    *,
    means: Float[Array, "c d"] | None = None,
    keep_features: bool = False,
) -> Sweep:
    """One split; `means` are the class means that define `nearest`, by default those of this split itself."""
    images, labels, mask = _batches(split, BATCH_SIZE)

    def forward(batch_images):
        placed = recipe.place_batch(batch_images)
        return features(recipe, state.params, state.batch_stats, placed, train=False)[0]

    found, kept = _scan(forward, images, labels, mask, frame, LOSSES[recipe.loss], means, keep_features)
    if means is None and keep_features:
        found = found._replace(nearest=jax.lax.map(lambda batch: _nearest(batch, found.stats.means), kept))
    elif means is None:
        found = found._replace(nearest=jax.lax.map(lambda batch: _nearest(forward(batch), found.stats.means), images))
    return _flat(found, len(split.labels))


@jax.jit
def sweep_features(
    given: Float[Array, "n d"],
    labels: Int[Array, " n"],
    frame: Float[Array, "d c"],
    means: Float[Array, "c d"] | None = None,
) -> Sweep:
    """The same of features from anywhere; the loss is cross-entropy."""
    batches, labels, mask = _batches(Split(given, labels), FEATURES_BATCH_SIZE)
    found, _ = _scan(lambda batch: batch, batches, labels, mask, frame, LOSSES["cross_entropy"], means, False)
    if means is None:
        found = found._replace(nearest=jax.lax.map(lambda batch: _nearest(batch, found.stats.means), batches))
    return _flat(found, len(given))


def _scan(forward, inputs, labels, mask, frame, loss, means, keep_features: bool):
    """A sweep whose arrays over samples are still in batches, and the features if they are to be kept."""
    dim, num_classes = frame.shape

    def body(running, batch):
        total, signed = running
        index, batch_inputs, batch_labels, batch_mask = batch
        found = forward(batch_inputs)
        key = jax.random.fold_in(jax.random.key(0), index)
        signed += complexity.sign_sums(key, found, batch_labels, num_classes, SIGN_DRAWS, mask=batch_mask)
        seen = stats.class_stats(found, batch_labels, num_classes, frame=frame, mask=batch_mask)
        outputs = Sweep(
            losses=loss(found, batch_labels, frame),
            predictions=jnp.argmax(logits(found, frame), axis=1),
            nearest=None if means is None else _nearest(found, means),
            margins=margins.sample_margins(found, batch_labels, frame),
            hoyer=sparsity.hoyer(found),
            zeros=sparsity.zero_share(found),
            stats=None,
            rademacher=None,
            class_rademacher=None,
        )
        return (stats.merge(total, seen), signed), (outputs, found if keep_features else None)

    start = stats.empty(num_classes, dim, with_margins=True), jnp.zeros((SIGN_DRAWS, num_classes, dim))
    batches = jnp.arange(len(labels)), inputs, labels, mask
    (total, signed), (outputs, kept) = jax.lax.scan(body, start, batches)
    whole = complexity.rademacher_from_sign_sums(signed.sum(axis=1), total.counts.sum())
    by_class = complexity.rademacher_from_sign_sums(signed, total.counts)
    return outputs._replace(stats=total, rademacher=whole, class_rademacher=by_class), kept


def _flat(found: Sweep, count: int) -> Sweep:
    """Batches of samples joined, the padding of the last one dropped."""
    return found._replace(**{name: getattr(found, name).reshape(-1)[:count] for name in OVER_SAMPLES})


@partial(jax.jit, static_argnums=0)
def split_features(recipe: Recipe, state: RunState, split: Split) -> Float[Array, "n d"]:
    """Features of one run on one split, in the order of the split."""
    batches = _batches(split, BATCH_SIZE)[0]
    found = jax.lax.map(
        lambda images: features(recipe, state.params, state.batch_stats, images, train=False)[0], batches
    )
    return found.reshape(-1, found.shape[-1])[: len(split.labels)]


def _batches(split: Split, size: int):
    """The split cut into equal batches; the last one is filled up with masked copies of image 0."""
    count = len(split.labels)
    size = min(size, count)
    number = -(-count // size)
    index = jnp.arange(number * size).reshape(number, size)
    inside = index < count
    taken = jnp.where(inside, index, 0)
    return split.images[taken], split.labels[taken], inside


def _nearest(found: Float[Array, "b d"], means: Float[Array, "c d"]) -> Int[Array, " b"]:
    """argmin_c ||z - mu_c||, centred at the mean of the means so that no digits are lost to a common offset."""
    centre = means.mean(axis=0)
    found, means = found - centre, means - centre
    closeness = jnp.matmul(found, means.T, precision=jax.lax.Precision.HIGHEST) - 0.5 * jnp.sum(means**2, axis=1)
    return jnp.argmax(closeness, axis=1)
