"""Values whose size torch's own functions change, in calls that the file makes."""

import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    """A hidden layer that subclasses normalise over its channels."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.inner = nn.Linear(8, width)
        self.gate = nn.Linear(width, width)
        self.softmax = nn.Softmax(dim=-1)
        self.outer = nn.Linear(width, 4)

    def normalised(self, h: torch.Tensor) -> torch.Tensor:
        return h

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.inner(x))
        return self.outer(torch.relu(h + self.normalised(self.gate(h))))


class SoftmaxFunction(Net):
    def normalised(self, h: torch.Tensor) -> torch.Tensor:
        return F.softmax(h, dim=-1)


class SoftmaxModule(Net):
    def normalised(self, h: torch.Tensor) -> torch.Tensor:
        return self.softmax(h)


class Normalize(Net):
    def normalised(self, h: torch.Tensor) -> torch.Tensor:
        return F.normalize(h, dim=-1)
