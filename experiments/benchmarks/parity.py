"""Do PyTorch's network and ncjax's train alike? Equal parameters and batches in, losses of a few steps compared.

ReLU is replaced by softplus and max-pool by mean-pool on both sides: at a kink or between two pixels of nearly equal
value rounding decides which way a gradient goes, and such differences (one pair of pixels in VGG-11 changes a loss by
2e-5, relative) would hide small errors. Everything else is what the benchmark times, in float32.
"""

from contextlib import contextmanager
from functools import cache
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.cases import WEIGHT_DECAY, host_state, make_inputs, make_recipe, make_split
from ncjax.models import vgg
from ncjax.models.layers import mean_pool
from ncjax.training.losses import cross_entropy
from ncjax.training.step import Split, features, train_step

IMAGES, STEPS = 16, 3
TOLERANCE = 1e-5  # found: 2e-7 and less on CPU; twice the weight decay gives 9e-4 with ResNet-8


@cache
def check(model: str, image_shape: tuple[int, ...]) -> float:
    """The largest relative difference of a loss.

    Raises:
      SystemExit: when it is above the tolerance: a benchmark of different networks would be worth nothing.
    """
    found = largest_difference(model, image_shape)
    if not found <= TOLERANCE:
        raise SystemExit(
            f"{model}: the losses of PyTorch and ncjax differ by {found:.1e}, relative, within {STEPS} steps "
            f"(tolerance {TOLERANCE:.0e}); they do not train the same network, nothing was timed"
        )
    return found


def largest_difference(model: str, image_shape: tuple[int, ...], torch_weight_decay: float = WEIGHT_DECAY) -> float:
    """Relative, over the losses before each of STEPS steps and after the last."""
    split = make_split(image_shape, IMAGES * (STEPS + 1))
    batches = [Split(*(array[i :: STEPS + 1] for array in split)) for i in range(STEPS + 1)]
    frame = make_inputs(model, 1).frame[0]
    recipe = make_recipe(model, image_shape, IMAGES, "auto")
    with smooth(), jax.default_matmul_precision("highest"):
        state = host_state(recipe, image_shape)
        parameters = ordered_parameters(recipe, state.params, image_shape)
        ours = _jax_losses(recipe, state, frame, batches)
        theirs = _torch_losses(model, parameters, frame, batches, torch_weight_decay)
    return float(np.max(np.abs(ours - theirs) / ours))


@contextmanager
def smooth():
    """While functions are traced or called, softplus stands where relu is written, mean-pool where max-pool is."""
    import torch.nn.functional as F  # noqa: N812 - the name everybody uses

    with (
        mock.patch.object(nn, "relu", jax.nn.softplus),
        mock.patch.object(vgg, "max_pool", mean_pool),
        mock.patch.object(F, "relu", F.softplus),
        mock.patch.object(F, "max_pool2d", F.avg_pool2d),
    ):
        yield


def ordered_parameters(recipe, params, image_shape: tuple[int, ...]) -> list[dict]:
    """The parameters of every layer that has some, in the order the layers are called."""
    paths = []

    def note(call, arguments, keywords, context):
        paths.append(context.module.path)
        return call(*arguments, **keywords)

    images = jnp.zeros((1, *image_shape))
    with nn.intercept_methods(note):
        jax.eval_shape(lambda: recipe.model.init(jax.random.key(0), images, train=False))
    layers = [_at(params, path) for path in dict.fromkeys(paths)]
    return [layer for layer in layers if not any(isinstance(leaf, dict) for leaf in layer.values()) and layer]


def copy_parameters(network, layers: list[dict]) -> None:
    """Give a PyTorch network the parameters of ncjax's: both lists in order, convolutions and norms apart."""
    import torch

    kernels = [np.transpose(layer["kernel"], (3, 2, 0, 1)) for layer in layers if "kernel" in layer]
    norms = [layer for layer in layers if "scale" in layer]
    convs = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    batch_norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    pairs = [(module.weight, kernel) for module, kernel in zip(convs, kernels, strict=True)]
    for module, layer in zip(batch_norms, norms, strict=True):
        pairs += [(module.weight, layer["scale"]), (module.bias, layer["bias"])]
    with torch.no_grad():
        for target, source in pairs:
            if target.shape != source.shape:  # copy_ would broadcast
                raise SystemExit(f"parameters of shape {source.shape} do not fit a layer of {tuple(target.shape)}")
            target.copy_(torch.tensor(np.asarray(source)))


def _jax_losses(recipe, state, frame, batches: list[Split]):
    @jax.jit
    def loss_and_step(state, batch):
        found, _ = features(recipe, state.params, state.batch_stats, batch.images, train=True)
        return cross_entropy(found, batch.labels, frame).mean(), train_step(recipe, state, frame, batch)

    losses = []
    for batch in batches:
        loss, state = loss_and_step(state, batch)
        losses.append(float(loss))
    return np.array(losses)


def _torch_losses(model: str, parameters: list[dict], frame, batches: list[Split], weight_decay: float):
    import torch

    from experiments.benchmarks import torch_models
    from experiments.benchmarks.variants import as_tensors, refuse_tf32, torch_device

    device = torch_device() or "cpu"
    refuse_tf32()
    network = torch_models.MODELS[model](batches[0].images.shape[-1])
    copy_parameters(network, parameters)
    network = network.to(device, memory_format=torch.channels_last)
    step = torch_models.make_step(network, frame, weight_decay=weight_decay)
    return np.array([float(step(*as_tensors(batch, device))) for batch in batches])


def _at(params, path: tuple[str, ...]):
    for name in path:
        params = params.get(name, {})
    return params
