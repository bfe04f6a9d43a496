"""Convolutional networks: one to three dimensions, grouped, depthwise, transposed, gated."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv1dNet(nn.Module):
    """An audio classifier: strided 1d convolutions and a pointwise readout per frame."""

    def __init__(self, width: int = 16, n_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, width, 7, padding=3)
        self.bn1 = nn.BatchNorm1d(width)
        self.down = nn.Conv1d(width, 2 * width, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm1d(2 * width)
        self.dilated = nn.Conv1d(2 * width, 2 * width, 3, padding=2, dilation=2)
        self.head = nn.Conv1d(2 * width, n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.stem(x)))
        x = F.relu(self.bn2(self.down(x)))
        x = x + F.relu(self.dilated(x))
        return self.head(x).mean(-1)


class Conv3dNet(nn.Module):
    """A video classifier."""

    def __init__(self, width: int = 16, n_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, width, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(4, width)
        self.conv = nn.Conv3d(width, width, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.stem(x)))
        x = F.max_pool3d(F.silu(self.conv(x)), 2)
        return self.fc(self.pool(x).flatten(1))


class ResNeXtBlock(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.expand = nn.Conv2d(width, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.reduce(x)))
        y = F.relu(self.bn2(self.conv(y)))
        return F.relu(x + self.bn3(self.expand(y)))


class GroupedNet(nn.Module):
    """ResNeXt with a fixed number of groups, which grow with the width."""

    def __init__(self, width: int = 32, groups: int = 4, n_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.block = ResNeXtBlock(width, groups)
        self.fc = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(F.relu(self.stem(x)))
        return self.fc(x.mean((2, 3)))


class GroupSizeNet(nn.Module):
    """RegNet's way: groups of a fixed size, of which there are more in a wider network."""

    def __init__(self, width: int = 32, group_size: int = 8, n_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.block = ResNeXtBlock(width, width // group_size)
        self.fc = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(F.relu(self.stem(x)))
        return self.fc(x.mean((2, 3)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.adaptive_avg_pool2d(x, 1)
        gate = self.fc2(F.silu(self.fc1(gate)))
        return x * torch.sigmoid(gate)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise, gate, project."""

    def __init__(self, channels: int, expansion: int = 2) -> None:
        super().__init__()
        hidden = channels * expansion
        self.block = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            SqueezeExcite(hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class DepthwiseSqueezeExcite(nn.Module):
    """A small EfficientNet."""

    def __init__(self, width: int = 16, n_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([InvertedResidual(width) for _ in range(2)])
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.classifier(x.mean(dim=(-2, -1)))


class ConvNeXtBlock(nn.Module):
    """Depthwise with a bias, channels-last norm, layer scale."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(0.1 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self, dim: int = 16, n_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 4, stride=4)
        self.block = ConvNeXtBlock(dim)
        self.head = nn.Linear(dim, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x)).mean((2, 3)))


class ConvAutoEncoder(nn.Module):
    """Strided convolutions down, transposed convolutions up, to an image again."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.enc1 = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.enc2 = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.dec1 = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)
        self.dec2 = nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.enc2(F.relu(self.enc1(x))))
        return self.dec2(F.relu(self.dec1(z)))


class GroupedTransposed(nn.Module):
    """A vocoder: 1d transposed convolutions, grouped with a fixed number and depthwise ones."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.pre = nn.Conv1d(8, width, 3, padding=1)
        self.up = nn.ConvTranspose1d(width, width, 4, stride=2, padding=1, groups=4)
        self.up_each = nn.ConvTranspose1d(width, width, 4, stride=2, padding=1, groups=width)
        self.post = nn.Conv1d(width, 1, 7, padding=3)

    def forward(self, mel: Tensor) -> Tensor:
        x = F.leaky_relu(self.pre(mel), 0.1)
        x = F.leaky_relu(self.up(x), 0.1)
        x = F.leaky_relu(self.up_each(x), 0.1)
        return torch.tanh(self.post(x))


class DoubleConv(nn.Sequential):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(
            nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """Skips are concatenated: a decoder's convolution reads two infinite pieces."""

    def __init__(self, width: int = 16, n_classes: int = 2) -> None:
        super().__init__()
        self.inc = DoubleConv(3, width)
        self.down1 = DoubleConv(width, 2 * width)
        self.down2 = DoubleConv(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.conv2 = DoubleConv(4 * width, 2 * width)
        self.up1 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv1 = DoubleConv(3 * width, width)
        self.outc = nn.Conv2d(width, n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(F.max_pool2d(x1, 2))
        x3 = self.down2(F.max_pool2d(x2, 2))
        y = self.conv2(torch.cat([x2, self.up2(x3)], dim=1))
        y = self.conv1(torch.cat([x1, self.up1(y)], dim=1))
        return self.outc(y)


class DenseNet(nn.Module):
    """Features are concatenated, the image among them: finite beside infinite channels."""

    def __init__(self, growth: int = 16, n_layers: int = 3, n_classes: int = 10) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [nn.Conv2d(3 + i * growth, growth, 3, padding=1) for i in range(n_layers)]
        )
        self.fc = nn.Linear(3 + n_layers * growth, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = torch.cat([x, F.relu(conv(x))], dim=1)
        return self.fc(x.mean((2, 3)))


class ShuffleNet(nn.Module):
    """Channels are shuffled between the groups."""

    def __init__(self, width: int = 32, groups: int = 4, n_classes: int = 10) -> None:
        super().__init__()
        self.groups = groups
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.gconv1 = nn.Conv2d(width, width, 1, groups=groups)
        self.dw = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.gconv2 = nn.Conv2d(width, width, 1, groups=groups)
        self.fc = nn.Linear(width, n_classes)

    def shuffle(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x = x.view(b, self.groups, c // self.groups, h, w)
        return x.transpose(1, 2).reshape(b, c, h, w)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.shuffle(F.relu(self.gconv1(x)))
        x = F.relu(x + self.gconv2(self.dw(y)))
        return self.fc(x.mean((2, 3)))


class PixelShuffleNet(nn.Module):
    """Super-resolution: channels become pixels (ESPCN)."""

    def __init__(self, width: int = 16, scale: int = 2) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Conv2d(width, width * scale**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(scale)
        self.tail = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.head(x))
        x = F.relu(self.shuffle(self.body(x)))
        return self.tail(x)
