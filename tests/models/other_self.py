"""Methods that call their instance otherwise, with a tied readout."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(net, width=32, vocab=64):
        super().__init__()
        net.embed = nn.Embedding(vocab, width)
        net.hidden = nn.Linear(width, width)
        net.init_weights()

    def init_weights(net):
        for weight in net.parameters():
            nn.init.normal_(weight, std=0.1)

    def features(me, tokens):
        return torch.relu(me.hidden(me.embed(tokens)))

    def forward(this, tokens):
        return this.features(tokens) @ this.embed.weight.t()
