"""What a converted file does with torch's own attention, whose logits its code cannot reach."""

from __future__ import annotations

CLASS = "MupMultiheadAttention"
CALL = "mup_attention_"

HEADER = """\
#   head_dim the size of a head at the base, of an attention module of torch
"""

CODE = '''\
class MupMultiheadAttention(torch.nn.MultiheadAttention):
    """torch's attention with its logits multiplied by ``mup_scale``.

    They are linear in the projected query W x + b, so x and b are multiplied.
    """

    def forward(
        self,
        query,
        key,
        value,
        key_padding_mask=None,
        need_weights=True,
        attn_mask=None,
        average_attn_weights=True,
        is_causal=False,
    ):
        bias = None
        if self.in_proj_bias is not None:
            query_bias, rest = self.in_proj_bias.split([self.embed_dim, 2 * self.embed_dim])
            bias = torch.cat([query_bias * self.mup_scale, rest])
        swap = self.batch_first and query.dim() == 3
        if swap:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        output, weights = torch.nn.functional.multi_head_attention_forward(
            query * self.mup_scale,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=self.in_proj_weight is None,
            q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        return (output.transpose(0, 1) if swap else output), weights


def mup_attention_(model):
    """Give the logits of torch's own attention modules their multiplier, in place."""
    for name, module in model.named_modules():
        if type(module) is torch.nn.MultiheadAttention:
            head_dim = _mup_row(f"{name}.out_proj.weight").get("head_dim", module.head_dim)
            if head_dim != module.head_dim:
                module.__class__ = MupMultiheadAttention
                module.mup_scale = (head_dim / module.head_dim) ** 0.5
                # torch's fused kernels for inference, which would bypass the class, need this
                module._qkv_same_embed_dim = False
    for module in model.modules():
        if isinstance(module, torch.nn.TransformerEncoder) and any(
            isinstance(part, MupMultiheadAttention) for part in module.modules()
        ):
            module.use_nested_tensor = False  # and so do nested tensors
'''
