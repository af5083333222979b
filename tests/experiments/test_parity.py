"""PyTorch's networks and ncjax's train alike, and the comparison sees a small difference."""

import pytest

pytest.importorskip("torch")

from experiments.benchmarks import parity
from experiments.benchmarks.cases import WEIGHT_DECAY

slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("model", "image_shape"),
    [
        ("resnet8", (8, 8, 1)),
        pytest.param("resnet20", (16, 16, 3), marks=slow),
        pytest.param("vgg11", (32, 32, 3), marks=slow),
        pytest.param("densenet121", (8, 8, 3), marks=slow),
    ],
)
def test_losses_of_both_agree(model, image_shape):
    assert parity.check(model, image_shape) <= parity.TOLERANCE


def test_another_weight_decay_is_seen():
    found = parity.largest_difference("resnet8", (8, 8, 1), torch_weight_decay=2 * WEIGHT_DECAY)
    assert found > 3 * parity.TOLERANCE


@pytest.mark.parametrize("difference", [2 * parity.TOLERANCE, float("nan")])
def test_different_networks_are_not_timed(monkeypatch, difference):
    monkeypatch.setattr(parity, "largest_difference", lambda *_: difference)
    with pytest.raises(SystemExit, match="do not train the same network"):
        parity.check("resnet8", (0, 0, 0))
