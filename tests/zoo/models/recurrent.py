"""Recurrent networks: torch's layers and cells, and cells by hand."""

import torch
from torch import Tensor, nn


class LSTMTagger(nn.Module):
    """Two bidirectional layers over an embedding."""

    def __init__(self, hidden: int = 32, vocab: int = 64, n_tags: int = 10) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, hidden)
        self.lstm = nn.LSTM(hidden, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.tag = nn.Linear(2 * hidden, n_tags)

    def forward(self, tokens: Tensor) -> Tensor:
        x, _ = self.lstm(self.embed(tokens))
        return self.tag(x)


class ProjectedLSTM(nn.Module):
    """proj_size: the state is projected, as in speech models."""

    def __init__(self, hidden: int = 64, proj: int = 32, n_mels: int = 8, n_out: int = 10) -> None:
        super().__init__()
        self.lstm = nn.LSTM(n_mels, hidden, num_layers=2, proj_size=proj, batch_first=True)
        self.out = nn.Linear(proj, n_out)

    def forward(self, mels: Tensor) -> Tensor:
        _, (h, _) = self.lstm(mels)
        return self.out(h[-1])


class FixedProjectionLSTM(nn.Module):
    """Only the hidden size grows; the projection stays, a bottleneck."""

    def __init__(self, hidden: int = 32, proj: int = 8, n_mels: int = 8, n_out: int = 10) -> None:
        super().__init__()
        self.lstm = nn.LSTM(n_mels, hidden, proj_size=proj, batch_first=True)
        self.out = nn.Linear(proj, n_out)

    def forward(self, mels: Tensor) -> Tensor:
        return self.out(self.lstm(mels)[0])


class GRUSeq2Seq(nn.Module):
    """An encoder's last state starts the decoder; dot-product attention between them."""

    def __init__(self, hidden: int = 32, vocab: int = 64) -> None:
        super().__init__()
        self.src = nn.Embedding(vocab, hidden)
        self.tgt = nn.Embedding(vocab, hidden)
        self.encoder = nn.GRU(hidden, hidden, batch_first=True)
        self.decoder = nn.GRU(hidden, hidden, batch_first=True)
        self.combine = nn.Linear(2 * hidden, hidden)
        self.out = nn.Linear(hidden, vocab)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, state = self.encoder(self.src(source))
        x, _ = self.decoder(self.tgt(target), state)
        weights = torch.softmax(torch.bmm(x, memory.transpose(1, 2)), dim=-1)
        context = torch.bmm(weights, memory)
        return self.out(torch.tanh(self.combine(torch.cat([x, context], dim=-1))))


class VanillaRNN(nn.Module):
    """Three layers with relu, bidirectional, time first."""

    def __init__(self, width: int = 32, n_in: int = 6, n_out: int = 10) -> None:
        super().__init__()
        self.rnn = nn.RNN(n_in, width, num_layers=3, nonlinearity="relu", bidirectional=True)
        self.fc = nn.Linear(2 * width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(x.transpose(0, 1))
        return self.fc(y.mean(0))


class Cells(nn.Module):
    """LSTMCell, GRUCell and RNNCell, unrolled."""

    def __init__(self, width: int = 32, n_in: int = 6, n_out: int = 10) -> None:
        super().__init__()
        self.width = width
        self.lstm = nn.LSTMCell(n_in, width)
        self.gru = nn.GRUCell(width, width)
        self.rnn = nn.RNNCell(width, width)
        self.head = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.size(0), self.width)
        c, g, r = torch.zeros_like(h), torch.zeros_like(h), torch.zeros_like(h)
        outputs = []
        for t in range(x.size(1)):
            h, c = self.lstm(x[:, t], (h, c))
            g = self.gru(h, g)
            r = self.rnn(g, r)
            outputs.append(self.head(r))
        return torch.stack(outputs, dim=1)


class HandLSTMCell(nn.Module):
    """Four gates from one projection, chunked."""

    def __init__(self, n_in: int, hidden: int) -> None:
        super().__init__()
        self.x2h = nn.Linear(n_in, 4 * hidden)
        self.h2h = nn.Linear(hidden, 4 * hidden, bias=False)
        self.ln = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        i, f, g, o = (self.x2h(x) + self.h2h(h)).chunk(4, dim=-1)
        c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(self.ln(c)), c


class HandLSTM(nn.Module):
    def __init__(self, hidden: int = 32, n_in: int = 6, n_out: int = 10) -> None:
        super().__init__()
        self.cell = HandLSTMCell(n_in, hidden)
        self.h0 = nn.Parameter(torch.zeros(hidden))
        self.c0 = nn.Parameter(torch.zeros(hidden))
        self.out = nn.Linear(hidden, n_out)

    def forward(self, x: Tensor) -> Tensor:
        h = self.h0.expand(x.size(0), -1)
        c = self.c0.expand(x.size(0), -1)
        for step in x.unbind(1):
            h, c = self.cell(step, (h, c))
        return self.out(h)


class TiedWordRNN(nn.Module):
    """A language model with a tied readout, as in PyTorch's word_language_model example."""

    def __init__(self, width: int = 32, vocab: int = 64) -> None:
        super().__init__()
        self.encoder = nn.Embedding(vocab, width)
        self.rnn = nn.LSTM(width, width, 2, batch_first=True)
        self.decoder = nn.Linear(width, vocab)
        self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        output, _ = self.rnn(self.encoder(tokens))
        return self.decoder(output)
