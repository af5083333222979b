"""What all backbones share: BatchNorm in float32, pooling, and the end that gives features."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

# Running averages keep 0.9 of the old value as in PyTorch; the running variance is the biased one.
BatchNorm = partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5, dtype=jnp.float32, use_fast_variance=False)


def max_pool(x: Float[Array, "b h w k"]) -> Float[Array, "b h2 w2 k"]:
    """Largest of every 2x2 square; a last odd row or column is left out. A reshape: fast in every loop."""
    return _squares(x).max(axis=(2, 4))


def mean_pool(x: Float[Array, "b h w k"]) -> Float[Array, "b h2 w2 k"]:
    """Mean of every 2x2 square; a last odd row or column is left out."""
    return _squares(x).mean(axis=(2, 4))


def _squares(x):
    rows, columns = x.shape[1] // 2, x.shape[2] // 2
    cut = x[:, : 2 * rows, : 2 * columns]
    return cut.reshape(len(x), rows, 2, columns, 2, x.shape[-1])


class Features(nn.Module):
    """The end of a backbone: what is done to its pooled, non-negative output (B, D).

    `relu` nothing; `batch_norm` a BatchNorm, as the authors of fixed ETFs do; `linear` a bias-free linear layer with
    isotropic Gaussian weights, under which a rotation of the frame is exactly a rotation of these weights.
    """

    kind: str

    @nn.compact
    def __call__(self, pooled: Float[Array, "b d"], train: bool) -> Float[Array, "b d"]:
        pooled = pooled.astype(jnp.float32)
        if self.kind == "batch_norm":
            return BatchNorm(use_running_average=not train)(pooled)
        if self.kind == "linear":
            dim = pooled.shape[-1]
            return nn.Dense(dim, use_bias=False, kernel_init=nn.initializers.normal(dim**-0.5))(pooled)
        return pooled
