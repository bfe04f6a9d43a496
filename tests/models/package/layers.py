"""Layers of the package."""

import torch
import torch.nn as nn


class FeedForward(nn.Module):
    """dim -> 2 * dim -> dim, with PyTorch's default init."""

    def __init__(self, dim: int):
        super().__init__()
        self.up = nn.Linear(dim, 2 * dim)
        self.down = nn.Linear(2 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))
