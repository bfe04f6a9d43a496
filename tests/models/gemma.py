"""Gemma's embedding: times the root of the width on the way in, tied on the way out."""

import torch
import torch.nn as nn


class RMSNorm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))  # the gain is 1 + weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)


class Gemma(nn.Module):
    def __init__(self, hidden_size: int = 32, vocab_size: int = 256):
        super().__init__()
        self.hidden_size = hidden_size
        self.embedder = nn.Embedding(vocab_size, hidden_size)
        self.gate = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.up = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.down = nn.Linear(2 * hidden_size, hidden_size, bias=False)
        self.pre_norm = RMSNorm(hidden_size)
        self.norm = RMSNorm(hidden_size)
        nn.init.normal_(self.embedder.weight, std=0.02)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.embedder(input_ids)
        # Gemma normalizes the embedding by sqrt(hidden_size).
        x = x * (self.hidden_size**0.5)
        h = self.pre_norm(x)
        x = x + self.down(nn.functional.gelu(self.gate(h)) * self.up(h))
        return torch.matmul(self.norm(x), self.embedder.weight.t())
