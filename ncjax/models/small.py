"""Two small backbones for quick experiments."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ncjax.models.conv import Conv
from ncjax.models.layers import BatchNorm, Features, max_pool


class ConvNet(nn.Module):
    """Three 3x3 convolutions (32, 64, 64 channels), a max-pool after the first and second; features (B, 64)."""

    features: str = "relu"
    dtype: jnp.dtype = jnp.float32
    conv_form: str = "auto"

    @nn.compact
    def __call__(self, images: Float[Array, "b h w k"], train: bool) -> Float[Array, "b 64"]:
        x = images
        for index, width in enumerate((32, 64, 64)):
            x = Conv(width, dtype=self.dtype, form=self.conv_form)(x)
            x = nn.relu(BatchNorm()(x, train)).astype(self.dtype)
            x = max_pool(x) if index < 2 else x
        return Features(self.features)(x.mean(axis=(1, 2), dtype=jnp.float32), train)


class MLP(nn.Module):
    """Two hidden layers (256, 64) with BatchNorm and ReLU; features of dimension 64."""

    features: str = "relu"
    dtype: jnp.dtype = jnp.float32
    conv_form: str = "auto"  # it has none; all backbones take the same settings

    @nn.compact
    def __call__(self, images: Float[Array, "b h w k"], train: bool) -> Float[Array, "b 64"]:
        x = images.reshape(len(images), -1)
        for width in (256, 64):
            x = nn.Dense(width, use_bias=False, dtype=self.dtype, kernel_init=nn.initializers.he_normal())(x)
            x = nn.relu(BatchNorm()(x, train)).astype(self.dtype)
        return Features(self.features)(x, train)
