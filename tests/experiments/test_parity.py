"""PyTorch's networks and ncjax's train alike, and the comparison sees a small difference."""

from contextlib import nullcontext

import numpy as np
import pytest

pytest.importorskip("torch")

from experiments.benchmarks import parity, torch_models
from experiments.benchmarks.cases import WEIGHT_DECAY, host_state, make_recipe
from ncjax import models
from ncjax.models import densenet


@pytest.fixture
def short_densenet(monkeypatch):
    """DenseNet with few layers on both sides: all of its 121 compile for half a minute."""
    blocks = (2, 3, 1, 2)
    monkeypatch.setattr(densenet, "BLOCKS", blocks)
    monkeypatch.setattr(torch_models, "DENSE_BLOCKS", blocks)
    dim = 64
    for block, layers in enumerate(blocks):
        dim = (dim // 2 if block else dim) + 32 * layers
    monkeypatch.setitem(models.MODELS, "densenet121", (densenet.DenseNet121, dim))


@pytest.mark.parametrize(
    ("model", "image_shape"),
    [
        ("resnet8", (8, 8, 1)),
        pytest.param("resnet20", (16, 16, 3), marks=pytest.mark.slow),
        pytest.param("vgg11", (32, 32, 3), marks=pytest.mark.slow),
    ],
)
def test_losses_of_both_agree(model, image_shape):
    assert parity.check(model, image_shape) <= parity.TOLERANCE


@pytest.mark.slow
def test_losses_of_densenet_agree(short_densenet):
    assert parity.largest_difference("densenet121", (8, 8, 3)) <= parity.TOLERANCE


def test_first_loss_agrees_with_relu_and_max_pool(monkeypatch):
    monkeypatch.setattr(parity, "STEPS", 0)
    monkeypatch.setattr(parity, "smooth", nullcontext)
    assert parity.largest_difference("vgg11", (32, 32, 3)) < 1e-5


@pytest.mark.parametrize("model", torch_models.MODELS)
def test_parameters_of_every_layer_find_their_place(model):
    recipe = make_recipe(model, (32, 32, 3), 16, "auto")
    params = host_state(recipe, (32, 32, 3)).params
    layers = parity.ordered_parameters(recipe, params, (32, 32, 3))
    network = torch_models.MODELS[model](3)
    parity.copy_parameters(network, layers)
    assert sum(weight.numel() for weight in network.parameters()) == sum(
        np.size(leaf) for layer in layers for leaf in layer.values()
    )


def test_another_weight_decay_is_seen():
    found = parity.largest_difference("resnet8", (8, 8, 1), torch_weight_decay=2 * WEIGHT_DECAY)
    assert found > 3 * parity.TOLERANCE


@pytest.mark.parametrize("difference", [2 * parity.TOLERANCE, float("nan")])
def test_different_networks_are_not_timed(monkeypatch, difference):
    monkeypatch.setattr(parity, "largest_difference", lambda *_: difference)
    with pytest.raises(SystemExit, match="do not train the same network"):
        parity.check("resnet8", (0, 0, 0))
