"""Several modules, one of them the root: an encoder, a decoder, and both under one class."""

import torch
import torch.nn as nn


class Encoder(nn.Module):
    """Images to codes."""

    def __init__(self, pixels: int, width: int, code: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(pixels, width), nn.Tanh(), nn.Linear(width, code))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Decoder(nn.Module):
    """Codes to images."""

    def __init__(self, code: int, width: int, pixels: int):
        super().__init__()
        self.hidden = nn.Linear(code, width)
        self.out = nn.Linear(width, pixels)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.hidden(z)))


class Autoencoder(nn.Module):
    """The root, with plain positional arguments."""

    def __init__(self, width=32, code=4, pixels=16):
        super().__init__()
        self.encoder = Encoder(pixels, width, code)
        self.decoder = Decoder(code, width, pixels)

    def forward(self, x):
        return self.decoder(self.encoder(x))
