"""VGG-11 with BatchNorm for 32x32 images (Simonyan and Zisserman 2015, configuration A).

Eight 3x3 convolutions without bias (a BatchNorm follows each), five 2x2 max-pools, no fully connected layers.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ncjax.errors import InputError
from ncjax.models.conv import Conv
from ncjax.models.layers import BatchNorm, Features, max_pool

STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # a max-pool ends each


class VGG11(nn.Module):
    """Features of dimension 512.

    Raises:
      InputError: for images below 32x32, which five pools would use up.
    """

    features: str = "relu"
    dtype: jnp.dtype = jnp.float32
    conv_form: str = "auto"

    @nn.compact
    def __call__(self, images: Float[Array, "b h w k"], train: bool) -> Float[Array, "b 512"]:
        if min(images.shape[1:3]) < 32:
            size = "x".join(map(str, images.shape[1:3]))
            raise InputError(f"config.model.name vgg11 needs images of at least 32x32, these are {size}: use resnet20")
        x = images
        for widths in STAGES:
            for width in widths:
                x = Conv(width, dtype=self.dtype, form=self.conv_form)(x)
                x = nn.relu(BatchNorm()(x, train)).astype(self.dtype)
            x = max_pool(x)
        return Features(self.features)(x.mean(axis=(1, 2), dtype=jnp.float32), train)
