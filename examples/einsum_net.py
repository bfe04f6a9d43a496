"""A decoder whose weights are raw parameters, stored (in, out) and used through einsum.

The letters, everywhere in this file:
    b batch    t, s time (of queries, of keys)    d model    h heads    k head size
    f feed-forward    v vocabulary
"""

import torch
import torch.nn as nn
import torch.nn.functional as F


def weight(*shape: int, std: float) -> nn.Parameter:
    """A weight drawn from a normal distribution."""
    w = nn.Parameter(torch.empty(*shape))
    nn.init.normal_(w, std=std)
    return w


class EinsumAttention(nn.Module):
    """Causal self-attention; heads have their own dimension in every weight."""

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        head_dim = d_model // n_heads
        self.scale = head_dim**-0.5
        self.w_q = weight(d_model, n_heads, head_dim, std=d_model**-0.5)
        self.w_k = weight(d_model, n_heads, head_dim, std=d_model**-0.5)
        self.w_v = weight(d_model, n_heads, head_dim, std=d_model**-0.5)
        self.w_o = weight(n_heads, head_dim, d_model, std=d_model**-0.5)  # sums over h and k

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = torch.einsum("btd,dhk->bthk", x, self.w_q)
        k = torch.einsum("bsd,dhk->bshk", x, self.w_k)
        v = torch.einsum("bsd,dhk->bshk", x, self.w_v)

        scores = torch.einsum("bthk,bshk->bhts", q, k) * self.scale
        # the future is masked
        t = x.shape[1]
        future = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
        attn = scores.masked_fill(future, float("-inf")).softmax(dim=-1)

        out = torch.einsum("bhts,bshk->bthk", attn, v)
        return torch.einsum("bthk,hkd->btd", out, self.w_o)


class EinsumMLP(nn.Module):
    """d -> f -> d with a GELU between."""

    def __init__(self, d_model: int, d_ff: int):
        super().__init__()
        self.w_in = weight(d_model, d_ff, std=d_model**-0.5)
        self.w_out = weight(d_ff, d_model, std=d_ff**-0.5)
        self.b_in = nn.Parameter(torch.zeros(d_ff))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.gelu(torch.einsum("btd,df->btf", x, self.w_in) + self.b_in)
        return torch.einsum("btf,fd->btd", h, self.w_out)


class EinsumBlock(nn.Module):
    """Pre-norm residual block; the norms have no gain of their own."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attn = EinsumAttention(d_model, n_heads)
        self.mlp = EinsumMLP(d_model, d_ff)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(F.layer_norm(x, x.shape[-1:]))
        return x + self.mlp(F.layer_norm(x, x.shape[-1:]))


class EinsumNet(nn.Module):
    """Token ids in, logits out.

    Args:
        vocab_size: size of the vocabulary.
        d_model: width of the residual stream.
        n_heads: attention heads; divides d_model.
        n_layers: number of blocks.
        max_len: longest sequence.
    """

    def __init__(
        self,
        vocab_size: int = 256,
        d_model: int = 128,
        n_heads: int = 4,
        n_layers: int = 2,
        max_len: int = 64,
    ):
        super().__init__()
        # embeddings and readout start small, as in GPT-2
        self.embed = weight(vocab_size, d_model, std=0.02)
        self.pos = weight(max_len, d_model, std=0.02)
        self.blocks = nn.ModuleList(
            EinsumBlock(d_model, n_heads, 4 * d_model) for _ in range(n_layers)
        )
        self.unembed = weight(d_model, vocab_size, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed[tokens] + self.pos[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        x = F.layer_norm(x, x.shape[-1:])
        return torch.einsum("btd,dv->btv", x, self.unembed)  # logits
