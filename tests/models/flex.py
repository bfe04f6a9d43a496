"""torch's flex attention, with its own scale and with the author's."""

import torch
from torch import nn
from torch.nn.attention.flex_attention import flex_attention as attend


def near(score, batch, head, i, j):
    return score - 0.1 * (i - j).abs()


class Model(nn.Module):
    def __init__(self, width: int = 32, heads: int = 2, given: bool = False) -> None:
        super().__init__()
        self.heads, self.given = heads, given
        self.embed = nn.Embedding(64, width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.head = nn.Linear(width, 64)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        q, k, v = (
            f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        if self.given:
            out = attend(q, k, v, score_mod=near, scale=0.5 * q.size(-1) ** -0.5)
        else:
            out = attend(q, k, v, score_mod=near)
        return self.head(out.transpose(1, 2).flatten(2))
