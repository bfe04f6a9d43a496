"""A multi-layer perceptron with ReLU and PyTorch's default init."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class MLP(nn.Module):
    """d_in -> width -> ... -> width -> d_out, with ``depth`` hidden-to-hidden layers.

    The defaults fit scikit-learn's 8x8 digits.
    """

    def __init__(self, d_in: int = 64, width: int = 64, d_out: int = 10, depth: int = 2):
        super().__init__()
        self.fc_in = nn.Linear(d_in, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.fc_out = nn.Linear(width, d_out)  # logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)  # images are welcome too
        x = F.relu(self.fc_in(x))
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.fc_out(x)
