"""torch's own layers: an encoder, a decoder that reads it, heads of fixed and of growing sizes."""

import torch
from torch import nn


class Net(nn.Module):
    """Token ids in, logits out."""

    def __init__(self, width: int = 32, vocab: int = 256):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.decoder = nn.TransformerDecoderLayer(
            width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.grown = nn.MultiheadAttention(width, width // 8, add_bias_kv=True, batch_first=True)
        self.own = nn.MultiheadAttention(width, 2, bias=False, kdim=2 * width, vdim=12)
        self.head = nn.Linear(width, vocab)

    def forward(self, tokens: torch.Tensor, padding: torch.Tensor | None = None) -> torch.Tensor:
        x = self.embed(tokens)
        memory = self.encoder(x, src_key_padding_mask=padding)
        causal = nn.Transformer.generate_square_subsequent_mask(x.size(1))
        x = self.decoder(x, memory, tgt_mask=causal, memory_key_padding_mask=padding)
        x = x + self.grown(x, x, x, need_weights=False)[0]
        x = x.transpose(0, 1)
        y = torch.cat([x, x.relu()], dim=-1)
        return self.head((x + self.own(x, y, y[..., :12])[0]).transpose(0, 1))
