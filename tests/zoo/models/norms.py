"""Normalisations, from torch and by hand, and normalised weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class ScaleNorm(nn.Module):
    """x / |x| times sqrt(d) and one learned number ("Transformers without tears")."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(()))
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return self.g * self.dim**0.5 * x / x.norm(dim=-1, keepdim=True).clamp(min=1e-5)


class AnnotatedLayerNorm(nn.Module):
    """The Annotated Transformer's: mean and (unbiased) std."""

    def __init__(self, features: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.a_2 = nn.Parameter(torch.ones(features))
        self.b_2 = nn.Parameter(torch.zeros(features))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        std = x.std(-1, keepdim=True)
        return self.a_2 * (x - mean) / (std + self.eps) + self.b_2


class SumLayerNorm(nn.Module):
    """Written with sums and the width itself, not with means."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        d = x.shape[-1]
        mu = x.sum(-1, keepdim=True) / d
        var = ((x - mu) ** 2).sum(-1, keepdim=True) / d
        return (x - mu) / torch.sqrt(var + 1e-5) * self.gain + self.bias


class HandNorms(nn.Module):
    """A residual MLP that goes through each of them."""

    def __init__(self, width: int = 32, n_in: int = 12, n_out: int = 10) -> None:
        super().__init__()
        self.embed = nn.Linear(n_in, width)
        kinds = (RMSNorm, ScaleNorm, AnnotatedLayerNorm, SumLayerNorm)
        self.norms = nn.ModuleList([kind(width) for kind in kinds])
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in kinds])
        self.head = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for norm, layer in zip(self.norms, self.layers, strict=False):
            x = x + torch.tanh(layer(norm(x)))
        return self.head(x)


class TorchNorms(nn.Module):
    """LayerNorm, RMSNorm and the functional forms."""

    def __init__(self, width: int = 32, n_in: int = 12, n_out: int = 10) -> None:
        super().__init__()
        self.embed = nn.Linear(n_in, width)
        self.ln = nn.LayerNorm(width)
        self.rms = nn.RMSNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        h = F.layer_norm(F.gelu(self.fc1(self.ln(x))), (2 * x.size(-1),))
        x = x + self.fc2(h)
        return self.head(self.rms(x))


class HandGroupNorm(nn.Module):
    """Group normalisation by reshaping."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        g = x.view(n, self.groups, -1)
        g = (g - g.mean(-1, keepdim=True)) / (g.var(-1, keepdim=True) + 1e-5).sqrt()
        return g.view(n, c, h, w) * self.weight + self.bias


class ImageNorms(nn.Module):
    """GroupNorm with a fixed number of groups and a fixed group size, InstanceNorm, by hand."""

    def __init__(self, width: int = 16, n_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norms = nn.ModuleList(
            [
                nn.GroupNorm(4, width),
                nn.GroupNorm(width // 4, width),
                nn.InstanceNorm2d(width, affine=True),
                HandGroupNorm(4, width),
                HandGroupNorm(width // 4, width),
            ]
        )
        self.convs = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in self.norms])
        self.fc = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = x + conv(F.relu(norm(x)))
        return self.fc(F.relu(x).mean((2, 3)))


class WeightNormMLP(nn.Module):
    """torch.nn.utils.weight_norm: g and v, a hook."""

    def __init__(self, width: int = 32, n_in: int = 12, n_out: int = 10) -> None:
        super().__init__()
        self.inp = weight_norm(nn.Linear(n_in, width))
        self.hid = weight_norm(nn.Linear(width, width))
        self.out = weight_norm(nn.Linear(width, n_out))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.inp(x))
        return self.out(F.relu(self.hid(x)))


class ParametrizedWeightNormMLP(nn.Module):
    """torch.nn.utils.parametrizations.weight_norm."""

    def __init__(self, width: int = 32, n_in: int = 12, n_out: int = 10) -> None:
        super().__init__()
        self.inp = parametrizations.weight_norm(nn.Linear(n_in, width))
        self.hid = parametrizations.weight_norm(nn.Linear(width, width))
        self.out = parametrizations.weight_norm(nn.Linear(width, n_out))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.inp(x))
        return self.out(F.relu(self.hid(x)))


class HandWeightNormLinear(nn.Module):
    """y = g * (v / |v|) x + b, rows of v normalised."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.randn(n_out, n_in) * 0.05)
        self.g = nn.Parameter(torch.ones(n_out))
        self.b = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        w = self.g.unsqueeze(1) * self.v / self.v.norm(dim=1, keepdim=True)
        return F.linear(x, w, self.b)


class HandWeightNormMLP(nn.Module):
    def __init__(self, width: int = 32, n_in: int = 12, n_out: int = 10) -> None:
        super().__init__()
        self.inp = nn.Linear(n_in, width)
        self.hid = HandWeightNormLinear(width, width)
        self.out = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.hid(F.relu(self.inp(x)))))


class WeightStandardisedConv(nn.Conv2d):
    """BiT's convolution: each filter has mean 0 and variance 1."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        var, mean = torch.var_mean(w, dim=[1, 2, 3], keepdim=True, unbiased=False)
        w = (w - mean) / torch.sqrt(var + 1e-10)
        return F.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)


class WeightStandardisedNet(nn.Module):
    def __init__(self, width: int = 16, n_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.conv = WeightStandardisedConv(width, width, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(4, width)
        self.fc = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(F.relu(self.stem(x))))
        return self.fc(F.relu(x).mean((2, 3)))


class SpectralNormCritic(nn.Module):
    """torch.nn.utils.spectral_norm: SN-GAN's discriminator."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv1 = spectral_norm(nn.Conv2d(3, width, 3, stride=2, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1))
        self.fc = spectral_norm(nn.Linear(2 * width, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv1(x), 0.2)
        x = F.leaky_relu(self.conv2(x), 0.2)
        return self.fc(x.mean((2, 3)))


class ParametrizedSpectralNormMLP(nn.Module):
    """torch.nn.utils.parametrizations.spectral_norm."""

    def __init__(self, width: int = 32, n_in: int = 12, n_out: int = 1) -> None:
        super().__init__()
        self.inp = parametrizations.spectral_norm(nn.Linear(n_in, width))
        self.hid = parametrizations.spectral_norm(nn.Linear(width, width))
        self.out = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.inp(x), 0.2)
        return self.out(F.leaky_relu(self.hid(x), 0.2))
