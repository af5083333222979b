"""ResNets for small images (He et al. 2016).

CIFAR ResNets of depth 6n + 2: a 3x3 stem, three stages of n basic blocks with 16, 32, 64 channels. ResNet-20 and -32
have the parameter-free shortcuts of the CIFAR paper (option A); ResNet-8 has 1x1 projections (option B), as MLPerf
Tiny. ResNet-18 is the ImageNet network with a 3x3 stride-1 stem, no max-pool, and projections.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ncjax.models.conv import Conv
from ncjax.models.layers import BatchNorm, Features


class BasicBlock(nn.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))."""

    channels: int
    strides: int
    projection: bool
    dtype: jnp.dtype
    conv_form: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w k"], train: bool) -> Float[Array, "b h2 w2 o"]:
        def conv_norm(x, size, strides):
            convolved = Conv(self.channels, size, strides, self.dtype, self.conv_form)(x)
            return BatchNorm()(convolved, train)

        y = nn.relu(conv_norm(x, 3, self.strides)).astype(self.dtype)
        y = conv_norm(y, 3, 1)
        if x.shape[-1] != self.channels and self.projection:
            x = conv_norm(x, 1, self.strides)
        elif x.shape[-1] != self.channels:
            x = _shortcut(x, self.channels, self.strides)
        return nn.relu(x + y).astype(self.dtype)


def _shortcut(x, channels: int, strides: int):
    """Every `strides`-th pixel, new channels filled with 0 on both sides (option A)."""
    extra = channels - x.shape[-1]
    return jnp.pad(x[:, ::strides, ::strides], ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))


class ResNet(nn.Module):
    """Stem, stages of basic blocks, global average pool: features of dimension `widths[-1]`."""

    widths: tuple[int, ...]
    blocks: int
    projection: bool = False
    features: str = "relu"
    dtype: jnp.dtype = jnp.float32
    conv_form: str = "auto"

    @nn.compact
    def __call__(self, images: Float[Array, "b h w k"], train: bool) -> Float[Array, "b d"]:
        x = Conv(self.widths[0], dtype=self.dtype, form=self.conv_form)(images)
        x = nn.relu(BatchNorm()(x, train)).astype(self.dtype)
        for stage, width in enumerate(self.widths):
            for block in range(self.blocks):
                strides = 2 if stage and not block else 1
                x = BasicBlock(width, strides, self.projection, self.dtype, self.conv_form)(x, train)
        return Features(self.features)(x.mean(axis=(1, 2), dtype=jnp.float32), train)
