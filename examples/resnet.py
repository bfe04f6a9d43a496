"""A small CIFAR-style ResNet: 3x32x32 images, basic blocks, BatchNorm.

Deep Residual Learning for Image Recognition, He et al., https://arxiv.org/abs/1512.03385
"""

import torch
import torch.nn as nn
import torch.nn.functional as F


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution with padding; BatchNorm follows, so it needs no bias."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            # the shape changes: project the shortcut with a 1x1 convolution (option B)
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """Two stages of ``blocks`` basic blocks each; the second halves the image.

    Args:
        width: channels of the stem and of the first stage; the second has twice as many.
        blocks: basic blocks per stage.
        num_classes: classes to tell apart.
    """

    def __init__(self, width: int = 32, blocks: int = 1, num_classes: int = 10):
        super().__init__()
        # CIFAR stem: 3x3 and no max-pooling
        self.conv1 = conv3x3(3, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.stage1 = self._make_stage(width, width, blocks, stride=1)
        self.stage2 = self._make_stage(width, 2 * width, blocks, stride=2)
        self.fc = nn.Linear(2 * width, num_classes)

        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(m, nn.BatchNorm2d):
                nn.init.constant_(m.weight, 1)
                nn.init.constant_(m.bias, 0)

    @staticmethod
    def _make_stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
        # only the first block of a stage changes the shape
        layers = [BasicBlock(in_channels, out_channels, stride)]
        layers += [BasicBlock(out_channels, out_channels) for _ in range(blocks - 1)]
        return nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))  # (N, width, 32, 32)
        x = self.stage1(x)  # (N, width, 32, 32)
        x = self.stage2(x)  # (N, 2 * width, 16, 16)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)  # (N, 2 * width)
        return self.fc(x)
