"""DenseNet-121 for small images (Huang et al. 2017): growth 32, compression 1/2, a 3x3 stem and no max-pool."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ncjax.models.conv import Conv
from ncjax.models.layers import BatchNorm, Features, mean_pool

BLOCKS, GROWTH = (6, 12, 24, 16), 32


class DenseNet121(nn.Module):
    """Features of dimension 1024."""

    features: str = "relu"
    dtype: jnp.dtype = jnp.float32
    conv_form: str = "auto"

    @nn.compact
    def __call__(self, images: Float[Array, "b h w k"], train: bool) -> Float[Array, "b 1024"]:
        def norm_relu(x):
            return nn.relu(BatchNorm()(x, train)).astype(self.dtype)

        def conv(x, channels, size):
            return Conv(channels, size, dtype=self.dtype, form=self.conv_form)(x)

        x = conv(images, 2 * GROWTH, 3)
        for block, layers in enumerate(BLOCKS):
            if block:
                x = mean_pool(conv(norm_relu(x), x.shape[-1] // 2, 1))
            for _ in range(layers):
                grown = conv(norm_relu(conv(norm_relu(x), 4 * GROWTH, 1)), GROWTH, 3)
                x = jnp.concatenate([x, grown], axis=-1)
        return Features(self.features)(norm_relu(x).mean(axis=(1, 2), dtype=jnp.float32), train)
