"""Layers whose weights torch computes anew: spectral norm by hooks, weight norm parametrized."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils import parametrizations, spectral_norm


class Net(nn.Module):
    def __init__(self, width: int = 32, classes: int = 5):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.conv = spectral_norm(nn.Conv2d(width, 2, 3, padding=1))
        self.grow = parametrizations.weight_norm(nn.Linear(2, width))
        self.hidden = parametrizations.weight_norm(nn.Linear(width, width))
        self.head = parametrizations.weight_norm(nn.Linear(width, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = self.conv(x).mean((2, 3))
        x = F.relu(self.grow(x))
        x = F.relu(self.hidden(x))
        return self.head(x)
