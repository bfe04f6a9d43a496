"""Patches of a picture, drawn by Xavier's rule of the kernel seen as a matrix, as DiT has it."""

import torch
from torch import nn


class Net(nn.Module):
    """A picture in, classes out."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, 5)
        w = self.patches.weight.data
        nn.init.xavier_uniform_(w.view([w.shape[0], -1]))
        nn.init.xavier_uniform_(self.mix.weight)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        h = self.patches(picture).flatten(2).mean(-1)
        return self.head(torch.relu(self.mix(torch.relu(h))))
