"""torch's own attention and transformer layers."""

import math

import torch
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """nn.MultiheadAttention, time first, a fixed number of heads."""

    def __init__(self, d_model: int = 32, n_heads: int = 4, vocab: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.attn = nn.MultiheadAttention(d_model, n_heads)
        self.head = nn.Linear(d_model, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens).transpose(0, 1)
        y = self.norm(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return self.head(x.transpose(0, 1))


class CausalWithBiasKV(nn.Module):
    """add_bias_kv and add_zero_attn, batch first, with a mask and the weights returned."""

    def __init__(self, d_model: int = 32, n_heads: int = 4, vocab: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.attn = nn.MultiheadAttention(
            d_model, n_heads, add_bias_kv=True, add_zero_attn=True, batch_first=True
        )
        self.head = nn.Linear(d_model, vocab)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(tokens)
        t = x.size(1)
        mask = torch.triu(torch.ones(t, t, dtype=torch.bool), diagonal=1)
        y = self.norm(x)
        out, weights = self.attn(y, y, y, attn_mask=mask)
        return self.head(x + out), weights


class CrossKdimVdim(nn.Module):
    """Queries of the model's width, keys and values of fixed sizes of their own."""

    def __init__(self, d_model: int = 32, kdim: int = 12, vdim: int = 20, n_out: int = 10) -> None:
        super().__init__()
        self.query = nn.Linear(8, d_model)
        self.attn = nn.MultiheadAttention(d_model, 4, kdim=kdim, vdim=vdim, batch_first=True)
        self.head = nn.Linear(d_model, n_out)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        q = self.query(x)
        return self.head(q + self.attn(q, keys, values)[0])


class WideKdim(nn.Module):
    """kdim and vdim grow as well: a wide encoder's memory."""

    def __init__(self, d_model: int = 32, n_out: int = 10) -> None:
        super().__init__()
        self.query = nn.Linear(8, d_model)
        self.memory = nn.Linear(6, 2 * d_model)
        self.attn = nn.MultiheadAttention(
            d_model, 4, kdim=2 * d_model, vdim=2 * d_model, batch_first=True
        )
        self.head = nn.Linear(d_model, n_out)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, m = self.query(x), torch.relu(self.memory(context))
        return self.head(q + self.attn(q, m, m)[0])


class MoreHeads(nn.Module):
    """Heads of a fixed size: more of them in a wider model, so 1/sqrt(d) is right as it is."""

    def __init__(self, d_model: int = 32, head_dim: int = 8, vocab: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.attn = nn.MultiheadAttention(d_model, d_model // head_dim, batch_first=True)
        self.head = nn.Linear(d_model, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        y = self.norm(x)
        return self.head(x + self.attn(y, y, y)[0])


class PositionalEncoding(nn.Module):
    def __init__(self, d_model: int, max_len: int = 32) -> None:
        super().__init__()
        position = torch.arange(max_len).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe = torch.zeros(max_len, d_model)
        pe[:, 0::2] = torch.sin(position * div_term)
        pe[:, 1::2] = torch.cos(position * div_term)
        self.register_buffer("pe", pe)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[: x.size(1)]


class EncoderLM(nn.Module):
    """nn.TransformerEncoder on embeddings times sqrt(d), after PyTorch's tutorial."""

    def __init__(
        self, d_model: int = 32, nhead: int = 4, nlayers: int = 2, ntoken: int = 64
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.embedding = nn.Embedding(ntoken, d_model)
        self.pos_encoder = PositionalEncoding(d_model)
        layer = nn.TransformerEncoderLayer(d_model, nhead, 4 * d_model, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, nlayers)
        self.linear = nn.Linear(d_model, ntoken)

    def forward(self, src: Tensor) -> Tensor:
        x = self.embedding(src) * math.sqrt(self.d_model)
        x = self.encoder(self.pos_encoder(x))
        return self.linear(x)


class PreNormEncoder(nn.Module):
    """norm_first, a final norm, a causal mask and a padding mask."""

    def __init__(self, d_model: int = 32, nhead: int = 4, ntoken: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(ntoken, d_model)
        layer = nn.TransformerEncoderLayer(
            d_model, nhead, 2 * d_model, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, 2, norm=nn.LayerNorm(d_model), enable_nested_tensor=False
        )
        self.linear = nn.Linear(d_model, ntoken)

    def forward(self, src: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(src.size(1))
        x = self.encoder(self.embedding(src), mask=mask, is_causal=True)
        return self.linear(x)


class Seq2Seq(nn.Module):
    """nn.Transformer: encoder and decoder, cross attention."""

    def __init__(self, d_model: int = 32, nhead: int = 4, vocab: int = 64) -> None:
        super().__init__()
        self.src = nn.Embedding(vocab, d_model)
        self.tgt = nn.Embedding(vocab, d_model)
        self.transformer = nn.Transformer(
            d_model, nhead, 1, 1, 4 * d_model, dropout=0.0, batch_first=True
        )
        self.generator = nn.Linear(d_model, vocab)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tgt.size(1))
        return self.generator(self.transformer(self.src(src), self.tgt(tgt), tgt_mask=mask))


class DecoderOnly(nn.Module):
    """nn.TransformerDecoder over a memory of image features."""

    def __init__(self, d_model: int = 32, vocab: int = 64) -> None:
        super().__init__()
        self.project = nn.Linear(24, d_model)
        self.embed = nn.Embedding(vocab, d_model)
        layer = nn.TransformerDecoderLayer(
            d_model, 4, 2 * d_model, 0.0, batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, 2)
        self.out = nn.Linear(d_model, vocab)

    def forward(self, features: Tensor, caption: Tensor) -> Tensor:
        return self.out(self.decoder(self.embed(caption), self.project(features)))
