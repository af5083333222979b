"""Convolutions in the form each backend likes.

    lax        plain `lax.conv_general_dilated`; GPU and TPU
    im2col     patches by shifted slices, then one matmul; tiny images on CPU
    canonical  plain forward, hand-written gradients; larger images on CPU

Why: on CPU a convolution inside a loop (`scan`, `lax.map`: every training step here) takes a slow path unless it is in
canonical NHWC/HWIO form, and neither gradient that autodiff derives is. `canonical` writes the input gradient as a
canonical convolution with the flipped, transposed kernel, and the weight gradient as canonical convolutions over
chunks of images, with channels in the place of the batch and the batch in the place of channels. A stride is taken out
first: squares of pixels become channels (ResNet-32: 1.04 times the images per second). Few output channels are slow
even so, so two neighbouring columns are computed as one pixel of twice the channels (ResNet-20: 1.04 to 1.09 times).
For images of at most 4x4 a matmul over patches is faster; its weight gradient is the one of `canonical` where there is
a neighbourhood to sum over.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

FORMS = ("auto", "lax", "im2col", "canonical")
TINY_PIXELS = 16  # images up to this many pixels take im2col on CPU; at 64 digits take 1.2 times as long
CHUNK = 16  # images per piece of the weight gradient
FEW_CHANNELS = 16  # up to so many output channels are computed for two columns at once
DIMENSIONS = ("NHWC", "HWIO", "NHWC")

Images, Kernel = Float[Array, "b h w k"], Float[Array, "s s k o"]


class Conv(nn.Module):
    """A square convolution without bias, padded by kernel_size // 2 on every side as in PyTorch; He-normal, fan out.

    Source of the initialisation: He et al. 2015.
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    dtype: jnp.dtype = jnp.float32
    form: str = "auto"

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "b h2 w2 o"]:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.variance_scaling(2.0, "fan_out", "normal"), shape)
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.strides, self.form)


def convolve(x: Images, kernel: Kernel, strides: int = 1, form: str = "auto") -> Float[Array, "b h2 w2 o"]:
    """Cross-correlation padded by s // 2, every `strides`-th pixel."""
    return _FORMS[choose_form(x.shape, kernel.shape) if form == "auto" else form](x, kernel, strides)


def choose_form(image_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> str:
    """The form for this backend and size."""
    if jax.default_backend() != "cpu":
        return "lax"
    tiny = image_shape[1] * image_shape[2] <= TINY_PIXELS
    return "im2col" if tiny or kernel_shape[0] == 1 else "canonical"


def _lax(x: Images, kernel: Kernel, strides: int):
    padding = [(kernel.shape[0] // 2,) * 2] * 2
    return lax.conv_general_dilated(x, kernel, (strides, strides), padding, dimension_numbers=DIMENSIONS)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _im2col(x: Images, kernel: Kernel, strides: int):
    return _patches(x, kernel.shape[0], strides) @ kernel.reshape(-1, kernel.shape[-1])


def _im2col_forward(x: Images, kernel: Kernel, strides: int):
    patches, spread = jax.vjp(lambda x: _patches(x, kernel.shape[0], strides), x)
    return patches @ kernel.reshape(-1, kernel.shape[-1]), (x, patches, kernel, spread)


def _im2col_backward(strides: int, saved, dy):
    x, patches, kernel, spread = saved
    (dx,) = spread(dy @ kernel.reshape(-1, kernel.shape[-1]).T)
    if strides == 1 and kernel.shape[0] > 1:
        return dx, _chunked_weight_gradient(x, dy, kernel.shape[0])
    return dx, (patches.reshape(-1, patches.shape[-1]).T @ dy.reshape(-1, dy.shape[-1])).reshape(kernel.shape)


_im2col.defvjp(_im2col_forward, _im2col_backward)


def _patches(x: Images, size: int, strides: int) -> Float[Array, "b h2 w2 ssk"]:
    """The s x s neighbourhoods of every output pixel, in the order of a kernel's first three axes."""
    before = size // 2
    padded = jnp.pad(x, ((0, 0), (before, before), (before, before), (0, 0)))
    rows, columns = (-(-extent // strides) for extent in x.shape[1:3])
    shifted = [
        padded[:, i : i + strides * (rows - 1) + 1 : strides, j : j + strides * (columns - 1) + 1 : strides]
        for i in range(size)
        for j in range(size)
    ]
    return jnp.concatenate(shifted, axis=-1)


def _canonical(x: Images, kernel: Kernel, strides: int):
    if strides > 1:
        return _correlate(_squares_as_channels(x, strides), _kernel_of_squares(kernel, strides))
    return _correlate(x, kernel)


def _squares_as_channels(x: Images, strides: int) -> Float[Array, "b h2 w2 rrk"]:
    """Squares of r x r pixels (r = strides) side by side in the channels; 0 where a last one is cut off."""
    rows, columns = (-(-extent // strides) for extent in x.shape[1:3])
    missing = [(0, rows * strides - x.shape[1]), (0, columns * strides - x.shape[2])]
    whole = jnp.pad(x, ((0, 0), *missing, (0, 0))).reshape(len(x), rows, strides, columns, strides, -1)
    return whole.swapaxes(2, 3).reshape(len(x), rows, columns, -1)


def _kernel_of_squares(kernel: Kernel, strides: int) -> Float[Array, "t t rrk o"]:
    """The kernel that does with stride 1 over `_squares_as_channels` what this one does with `strides` over pixels."""
    size = kernel.shape[0]
    before = -(size // 2) % strides  # so that the pixel an output is centred on begins a square
    taps = -(-(size + before) // strides)
    whole = jnp.pad(kernel, ((before, taps * strides - size - before),) * 2 + ((0, 0),) * 2)
    squares = whole.reshape(taps, strides, taps, strides, *kernel.shape[2:])
    return squares.swapaxes(1, 2).reshape(taps, taps, -1, kernel.shape[-1])


@jax.custom_vjp
def _correlate(x: Images, kernel: Kernel):
    """Stride 1, padded by size // 2 before and the rest of size - 1 behind."""
    return _correlate_padded(x, kernel, before=kernel.shape[0] // 2)


def _correlate_forward(x: Images, kernel: Kernel):
    return _correlate(x, kernel), (x, kernel)


def _correlate_backward(saved, dy):
    """The gradient of x: dy with the kernel turned by 180 degrees, padded the other way round."""
    x, kernel = saved
    size = kernel.shape[0]
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return _correlate_padded(dy, turned, before=(size - 1) // 2), _chunked_weight_gradient(x, dy, size)


_correlate.defvjp(_correlate_forward, _correlate_backward)


def _correlate_padded(x: Images, kernel: Kernel, before: int):
    """Plain; for few output channels as a kernel of one more column that slides by two, its outputs side by side."""
    padding = [(before, kernel.shape[0] - 1 - before)] * 2
    if kernel.shape[-1] > FEW_CHANNELS or x.shape[2] % 2:
        return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=DIMENSIONS)
    shifted = [jnp.pad(kernel, ((0, 0), (column, 1 - column), (0, 0), (0, 0))) for column in (0, 1)]
    pairs = lax.conv_general_dilated(x, jnp.concatenate(shifted, -1), (1, 2), padding, dimension_numbers=DIMENSIONS)
    return pairs.reshape(*x.shape[:3], kernel.shape[-1])


def _chunked_weight_gradient(x: Images, dy, size: int) -> Kernel:
    """dw[i, j, k, o] = sum over images and pixels of x[b, h+i, w+j, k] dy[b, h, w, o], 16 images at a time."""
    whole = len(x) // CHUNK
    padding = [(size // 2, (size - 1) // 2)] * 2

    def piece(start, count):
        lhs = lax.dynamic_slice_in_dim(x, start, count).transpose(3, 1, 2, 0)
        rhs = lax.dynamic_slice_in_dim(dy, start, count).transpose(1, 2, 0, 3)
        return lax.conv_general_dilated(
            lhs, rhs, (1, 1), padding, dimension_numbers=DIMENSIONS, preferred_element_type=jnp.float32
        )

    total = jnp.zeros((x.shape[-1], size, size, dy.shape[-1]), jnp.float32)
    if whole:
        total = lax.fori_loop(0, whole, lambda i, running: running + piece(i * CHUNK, CHUNK), total)
    if len(x) % CHUNK:
        total = total + piece(whole * CHUNK, len(x) % CHUNK)
    return total.transpose(1, 2, 0, 3).astype(x.dtype)


_FORMS = {"lax": _lax, "im2col": _im2col, "canonical": _canonical}
