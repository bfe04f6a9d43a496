"""The package's model, whose similarity is not normalised: a site of its own."""

import torch
import torch.nn as nn

from .layers import FeedForward


class Regressor(nn.Module):
    """Vectors in, their similarities to learned prototypes' images out."""

    def __init__(self, features: int = 8, dim: int = 32, prototypes: int = 5):
        super().__init__()
        self.stem = nn.Linear(features, dim)
        self.ff = FeedForward(dim)
        self.prototypes = nn.Parameter(torch.randn(prototypes, features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.ff(torch.relu(self.stem(x)))
        p = self.ff(torch.relu(self.stem(self.prototypes)))
        return h @ p.T
