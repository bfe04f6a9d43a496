"""A tagger: an embedding, two layers of LSTM, a readout."""

import torch
import torch.nn as nn


class Tagger(nn.Module):
    def __init__(self, hidden: int = 32, vocab: int = 48, tags: int = 12):
        super().__init__()
        self.embed = nn.Embedding(vocab, hidden)
        self.lstm = nn.LSTM(hidden, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, tags)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.embed(tokens))
        return self.head(states)
