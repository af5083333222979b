"""One sweep over a split in eval mode, for ONE run: statistics, margins and predictions in a single network pass."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ncjax.theory import margins, stats
from ncjax.training.losses import LOSSES, logits
from ncjax.training.step import Recipe, RunState, Split, features

BATCH_SIZE = 200  # images per network pass; more does not run faster on CPU and only costs memory


class Sweep(NamedTuple):
    """What one run does on one split, in the order of the split."""

    losses: Float[Array, " n"]
    predictions: Int[Array, " n"]
    nearest: Int[Array, " n"]  # the class whose TRAINING mean is nearest to the features
    margins: Float[Array, " n"]  # smallest own logit minus another
    stats: stats.ClassStats


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
    num_classes = frame.shape[1]
    images, labels, mask = _batches(split)

    def forward(batch_images):
        placed = recipe.place_batch(batch_images)
        return features(recipe, state.params, state.batch_stats, placed, train=False)[0]

    def body(running, batch):
        batch_images, batch_labels, batch_mask = batch
        found = forward(batch_images)
        seen = stats.class_stats(found, batch_labels, num_classes, frame=frame, mask=batch_mask)
        output = (
            LOSSES[recipe.loss](found, batch_labels, frame),
            jnp.argmax(logits(found, frame), axis=1),
            margins.sample_margins(found, batch_labels, frame),
            None if means is None else _nearest(found, means),
            found if keep_features else None,
        )
        return stats.merge(running, seen), output

    start = stats.empty(num_classes, frame.shape[0], with_margins=True)
    total, outputs = jax.lax.scan(body, start, (images, labels, mask))
    losses, predictions, smallest, nearest, kept = outputs
    if means is None and keep_features:
        nearest = jax.lax.map(lambda found: _nearest(found, total.means), kept)
    elif means is None:
        nearest = jax.lax.map(lambda batch: _nearest(forward(batch), total.means), images)
    flat = [part.reshape(-1)[: len(split.labels)] for part in (losses, predictions, nearest, smallest)]
    return Sweep(*flat, total)


@partial(jax.jit, static_argnums=0)
def split_features(recipe: Recipe, state: RunState, split: Split) -> Float[Array, "n d"]:
    """Features of one run on one split, in the order of the split."""
    batches = _batches(split)[0]
    found = jax.lax.map(
        lambda images: features(recipe, state.params, state.batch_stats, images, train=False)[0], batches
    )
    return found.reshape(-1, found.shape[-1])[: len(split.labels)]


def _batches(split: Split):
    """The split cut into equal batches; the last one is filled up with masked copies of image 0."""
    count = len(split.labels)
    size = min(BATCH_SIZE, count)
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
