"""The model is what a function of the file builds."""

from typing import Any

import torch
from torch import nn


class Wide(nn.Module):
    def __init__(self, dim: int, hidden: int, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Linear(16, dim)
        self.up = nn.Parameter(0.1 * torch.randn(dim, hidden))
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(torch.relu(self.stem(x)) @ self.up))


def build_model(width: int = 32, **settings: Any) -> nn.Module:
    return Wide(dim=width, hidden=3 * width, **settings)


def drawn_model(width: int = 32) -> nn.Module:
    model = Wide(width, 2 * width)
    for p in model.parameters():
        if p.dim() > 1:
            nn.init.xavier_uniform_(p)

    # as "The Annotated Transformer" has it
    return model
