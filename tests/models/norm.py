"""A sibling that the model files beside it import."""

import torch
import torch.nn as nn


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a gain."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight
