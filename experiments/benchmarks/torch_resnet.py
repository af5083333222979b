"""The yardstick's network: ResNet for small images in PyTorch, the same as `ncjax.models.resnet`, features only."""

from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody uses
from torch import nn


class Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int, projection: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.stride, self.extra = stride, channels - channels_in
        self.project = None
        if projection and self.extra:
            self.project = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.project:
            x = self.project(x)
        elif self.extra:
            x = F.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2)
            )
        return F.relu(x + y)


class ResNet(nn.Module):
    """Three stages of 16, 32, 64 channels with `blocks` blocks each: depth 6 blocks + 2 (He et al. 2016)."""

    def __init__(self, blocks: int, channels: int, projection: bool):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [16] * (blocks + 1) + [32] * blocks + [64] * blocks
        pairs = pairwise(widths)
        self.blocks = nn.Sequential(*(Block(a, b, 1 if a == b else 2, projection) for a, b in pairs))

    def forward(self, x):
        return self.blocks(F.relu(self.norm(self.stem(x)))).mean(dim=(2, 3))


def make_run(depth: int, channels: int, frame, seed: int):
    """One run: a function of (images, labels) that makes one step of SGD."""
    torch.manual_seed(seed)
    model = ResNet((depth - 2) // 6, channels, projection=depth == 8).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-3)
    frame = torch.tensor(frame)

    def step(images, labels):
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(images) @ frame, labels)
        loss.backward()
        optimizer.step()

    return step
