"""What the hardware allows: arithmetic and memory bandwidth, against what a training step needs of both.

What a step needs is counted by XLA for ONE run with plain convolutions (ncjax/training/cost.py).

The limit of a GPU or TPU is the lower of the two (the roofline). On CPU it is arithmetic alone: XLA counts as memory
traffic what caches serve there.
"""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.benchmarks.cases import NUM_CLASSES, Setting, setting_recipe
from experiments.benchmarks.timing import allowed_cores, repeated
from ncjax import models
from ncjax.training.cost import step_cost


class Limits(NamedTuple):
    """Of all devices together, and what one run-image of a training step takes of them."""

    flops_per_second: float
    bytes_per_second: float
    flops_per_image: float
    bytes_per_image: float

    def shares(self, rate: float) -> tuple[float, float]:
        """The shares of arithmetic and of bandwidth that `rate` run-images per second use."""
        return rate * self.flops_per_image / self.flops_per_second, rate * self.bytes_per_image / self.bytes_per_second


def limits(setting: Setting) -> Limits:
    """Measured rates, counted needs."""
    return Limits(matmul_rate(setting.dtype), bandwidth(), *cost_per_image(setting))


def cost_per_image(setting: Setting) -> tuple[float, float]:
    """(FLOPs, bytes) of one training step of one run, per image."""
    case = setting.case
    cost = step_cost(setting_recipe(setting, "lax"), case.image_shape, (models.feature_dim(case.model), NUM_CLASSES))
    return cost.flops / case.batch_size, cost.bytes_accessed / case.batch_size


@cache
def matmul_rate(dtype: str, size: int = 0, repeats: int = 5) -> float:
    """FLOP/s of large square products in the precision of `dtype`: jax on all devices, or PyTorch on CPU if faster."""
    on_cpu = jax.default_backend() == "cpu"
    size = size or (2048 if on_cpu else 8192)
    found = jax.device_count() * 2 * size**3 / _fastest(_jax_product(dtype, size), repeats)
    if on_cpu and (product := _torch_product(dtype, size)):
        found = max(found, 2 * size**3 / _fastest(product, repeats))
    return found


@cache
def bandwidth(count: int = 0, repeats: int = 10) -> float:
    """Bytes/s of (a + b) / 2, float32, `count` numbers a device, written over a."""
    count = count or (2**25 if jax.default_backend() == "cpu" else 2**28)
    shape = jax.device_count(), count
    arrays = [jax.jit(lambda: jnp.ones(shape), out_shardings=_one_row_each())() for _ in range(2)]
    add = jax.jit(lambda a, b: 0.5 * a + 0.5 * b, donate_argnums=0)  # stays 1 however often

    def call():
        arrays[0] = jax.block_until_ready(add(*arrays))

    return 3 * 4 * jax.device_count() * count / _fastest(call, repeats)


def _jax_product(dtype: str, size: int):
    shape, kept = (jax.device_count(), size, size), jnp.bfloat16 if dtype == "bfloat16" else jnp.float32
    matrices = jax.jit(lambda: jnp.ones(shape, kept), out_shardings=_one_row_each())()
    product = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(product(matrices, matrices))


def _torch_product(dtype: str, size: int):
    try:
        import torch
    except ModuleNotFoundError:
        return None
    torch.set_num_threads(allowed_cores())
    matrix = torch.ones(size, size, dtype=torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    return lambda: matrix @ matrix


def _one_row_each() -> NamedSharding:
    mesh = jax.make_mesh((jax.device_count(),), ("devices",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, P("devices"))


def _fastest(call, repeats: int) -> float:
    call()
    return float(np.min(repeated({"": call}, repeats)[""]))
