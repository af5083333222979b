"""The yardstick's networks in PyTorch: the same as those of `ncjax.models`, features only.

Layers are defined in the order they are used, so that `parity` can copy parameters one after another.
"""

from functools import cache, partial
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody uses
from torch import nn

VGG_STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # a max-pool ends each
DENSE_BLOCKS, GROWTH = (6, 12, 24, 16), 32


def conv(channels_in: int, channels: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """Without bias, padded by size // 2."""
    return nn.Conv2d(channels_in, channels, size, stride, size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: a 1x1 projection, or pixels left out and channels filled with 0."""

    def __init__(self, channels_in: int, channels: int, stride: int, projection: bool):
        super().__init__()
        self.conv1, self.norm1 = conv(channels_in, channels, 3, stride), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = conv(channels, channels), nn.BatchNorm2d(channels)
        self.stride, self.extra = stride, channels - channels_in
        self.project = None
        if projection and self.extra:
            self.project = nn.Sequential(conv(channels_in, channels, 1, stride), nn.BatchNorm2d(channels))

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.project:
            x = self.project(x)
        elif self.extra:
            kept = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(kept, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return F.relu(x + y)


class ResNet(nn.Module):
    """Three stages of 16, 32, 64 channels with `blocks` blocks each: depth 6 blocks + 2 (He et al. 2016)."""

    def __init__(self, blocks: int, channels: int, projection: bool = False):
        super().__init__()
        self.stem, self.norm = conv(channels, 16), nn.BatchNorm2d(16)
        widths = [16] * (blocks + 1) + [32] * blocks + [64] * blocks
        pairs = pairwise(widths)
        self.blocks = nn.Sequential(*(BasicBlock(a, b, 1 if a == b else 2, projection) for a, b in pairs))

    def forward(self, x):
        return self.blocks(F.relu(self.norm(self.stem(x)))).mean(dim=(2, 3))


class VGG11(nn.Module):
    """Eight 3x3 convolutions with BatchNorm and five 2x2 max-pools (Simonyan and Zisserman 2015)."""

    def __init__(self, channels: int):
        super().__init__()
        widths = [channels, *(width for stage in VGG_STAGES for width in stage)]
        pairs = list(pairwise(widths))
        self.convs = nn.ModuleList(conv(a, b) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs)
        ends = torch.tensor([len(stage) for stage in VGG_STAGES]).cumsum(0).tolist()
        self.pooled = {end - 1 for end in ends}

    def forward(self, x):
        for index, (convolve, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.relu(norm(convolve(x)))
            if index in self.pooled:
                x = F.max_pool2d(x, 2)
        return x.mean(dim=(2, 3))


class DenseLayer(nn.Module):
    """Appends GROWTH channels, through a 1x1 bottleneck."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), conv(channels, 4 * GROWTH, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * GROWTH), conv(4 * GROWTH, GROWTH)

    def forward(self, x):
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], dim=1)


class Transition(nn.Module):
    """Halves channels, rows and columns."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(channels), conv(channels, channels // 2, 1)

    def forward(self, x):
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet121(nn.Module):
    """For small images: a 3x3 stem and no max-pool (Huang et al. 2017)."""

    def __init__(self, channels: int):
        super().__init__()
        width = 2 * GROWTH
        layers = [conv(channels, width)]
        for block, depth in enumerate(DENSE_BLOCKS):
            if block:
                layers.append(Transition(width))
                width //= 2
            layers += [DenseLayer(width + GROWTH * index) for index in range(depth)]
            width += GROWTH * depth
        self.layers, self.norm = nn.Sequential(*layers), nn.BatchNorm2d(width)

    def forward(self, x):
        return F.relu(self.norm(self.layers(x))).mean(dim=(2, 3))


MODELS = {  # constructors of one argument, the channels of an image
    "resnet8": partial(ResNet, 1, projection=True),
    "resnet20": partial(ResNet, 3),
    "resnet32": partial(ResNet, 5),
    "vgg11": VGG11,
    "densenet121": DenseNet121,
}


def make_step(network: nn.Module, frame, *, dtype: str = "float32", weight_decay: float, compiled: bool = False):
    """One run: a function of (images, labels) on the network's device that makes a step of SGD and gives the loss."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=weight_decay)
    device = next(network.parameters()).device
    frame = torch.tensor(frame, device=device)
    loss_of = _compiled_loss() if compiled else batch_loss

    def step(images, labels):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(network, frame, images, labels, dtype == "bfloat16")
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def batch_loss(network: nn.Module, frame, images, labels, bfloat16: bool):
    """Mean cross-entropy; the network under autocast where asked for, the classifier in float32 as in ncjax."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
        features = network(images)
    return F.cross_entropy(features.float() @ frame, labels)


@cache
def _compiled_loss():
    """One compiled function for all runs: their parameters are its arguments."""
    return torch.compile(batch_loss)
