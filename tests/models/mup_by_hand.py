"""A small transformer in muP, written by hand in mup's form: a readout divided by the width."""

import math

import torch
import torch.nn as nn

BASE = 32


class Attention(nn.Module):
    def __init__(self, width: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2)) * (math.sqrt(8) / k.size(-1))
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, C))


class Transformer(nn.Module):
    def __init__(self, width: int = 128, vocab: int = 64):
        super().__init__()
        self.mult = width / BASE
        self.embed = nn.Embedding(vocab, width)
        self.ln = nn.LayerNorm(width)
        self.attn = Attention(width)
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)
        for p in self.hidden():
            nn.init.normal_(p, std=0.1 / math.sqrt(self.mult))
        nn.init.normal_(self.head.weight, std=0.1)

    def hidden(self):
        return [self.attn.qkv.weight, self.attn.proj.weight]

    def forward(self, idx):
        x = self.embed(idx)
        x = x + self.attn(self.ln(x))
        return self.head(self.ln_f(x)) / self.mult

    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type):
        hidden = {id(p) for p in self.hidden()}
        return torch.optim.AdamW(
            [
                {
                    "params": self.hidden(),
                    "lr": learning_rate / self.mult,
                    "weight_decay": weight_decay * self.mult,
                },
                {"params": [p for p in self.parameters() if id(p) not in hidden]},
            ],
            lr=learning_rate,
            betas=betas,
            weight_decay=weight_decay,
        )
