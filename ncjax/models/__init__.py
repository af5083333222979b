"""Backbones that end in features (B, D); the fixed classifier is not theirs."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from ncjax.errors import InputError
from ncjax.models.conv import FORMS
from ncjax.models.densenet import DenseNet121
from ncjax.models.resnet import ResNet
from ncjax.models.small import MLP, ConvNet
from ncjax.models.vgg import VGG11

NARROW, WIDE = (16, 32, 64), (64, 128, 256, 512)
MODELS = {  # name: (constructor, feature dimension)
    "resnet32": (partial(ResNet, NARROW, 5), 64),
    "vgg11": (VGG11, 512),
    "densenet121": (DenseNet121, 1024),
    "resnet8": (partial(ResNet, NARROW, 1, True), 64),
    "resnet20": (partial(ResNet, NARROW, 3), 64),
    "resnet18": (partial(ResNet, WIDE, 2, True), 512),
    "convnet": (ConvNet, 64),
    "mlp": (MLP, 64),
}


def build(name: str, *, features: str = "relu", dtype: str = "float32", conv_form: str = "auto") -> nn.Module:
    """A module `(images float32 (B, H, W, channels), train: bool) -> features float32 (B, D)`.

    Args:
      name: a key of `MODELS`.
      features: "relu", "batch_norm" or "linear"; see `layers.Features`.
      dtype: of convolutions, "float32" or "bfloat16"; parameters, BatchNorm and features are float32.
      conv_form: a form of `conv`, "auto" by backend and size.

    Raises:
      InputError: for an unknown name or form.
    """
    if conv_form not in FORMS:
        raise InputError(f"convolution form {conv_form!r} is unknown: use one of {', '.join(FORMS)}")
    return _entry(name)[0](features=features, dtype=jnp.dtype(dtype), conv_form=conv_form)


def feature_dim(name: str) -> int:
    """D of a model."""
    return _entry(name)[1]


def _entry(name: str):
    if name not in MODELS:
        raise InputError(f"model {name!r} is unknown: use one of {', '.join(MODELS)}")
    return MODELS[name]
