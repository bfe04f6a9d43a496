"""What a converted file does with torch's own attention, whose logits its code cannot reach."""

from __future__ import annotations

from collections.abc import Sequence

FUNCTION = "mup_attention_forward"
CLASS = "MupMultiheadAttention"
CALL = "mup_attention_"
TORCHS = "multi_head_attention_forward"
"""The function of torch that its own modules call, and that a file may call by hand."""

HEADER = """\
#   head_dim the size of a head at the base, of an attention module of torch
"""
_UNSCALED, _FIXED = "if mup_scale != 1.0:", "if head_dim != module.head_dim:"
_ROW_HAS = 'if "head_dim" in _mup_row(f"{name}.out_proj.weight"):'

_FORWARD = '''\
def mup_attention_forward(
    query,
    key,
    value,
    embed_dim_to_check,
    num_heads,
    in_proj_weight,
    in_proj_bias,
    *args,
    mup_scale,
    **kwargs,
):
    """torch's multi_head_attention_forward with its logits multiplied by ``mup_scale``.

    They are linear in the projected query W x + b, so x and b are multiplied.
    """
    size = embed_dim_to_check
    if mup_scale != 1.0:
        query = query * mup_scale
        if in_proj_bias is not None:
            query_bias, rest = in_proj_bias.split([size, 2 * size])
            in_proj_bias = torch.cat([query_bias * mup_scale, rest])
    return torch.nn.functional.multi_head_attention_forward(
        query, key, value, size, num_heads, in_proj_weight, in_proj_bias, *args, **kwargs
    )
'''

_MODULES = '''\


class MupMultiheadAttention(torch.nn.MultiheadAttention):
    """torch's attention with its logits multiplied by ``mup_scale``."""

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
        swap = self.batch_first and query.dim() == 3
        if swap:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        output, weights = mup_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            mup_scale=self.mup_scale,
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

{classes}
def mup_attention_(model):
    """Give the logits of torch's own attention modules their multiplier, in place."""
    kinds = {kinds}
    for name, module in model.named_modules():
        if type(module) in kinds:
            head_dim = _mup_row(f"{name}.out_proj.weight").get("head_dim", module.head_dim)
            if {needed}:
                module.__class__ = kinds[type(module)]
                module.mup_scale = (head_dim / module.head_dim) ** 0.5{constant}
                # torch's fused kernels for inference, which would bypass the class, need this
                module._qkv_same_embed_dim = False
    for module in model.modules():
        if isinstance(module, torch.nn.TransformerEncoder) and any(
            isinstance(part, MupMultiheadAttention) for part in module.modules()
        ):
            module.use_nested_tensor = False  # and so do nested tensors
'''
_SUBCLASS = '''
class Mup{name}({name}, MupMultiheadAttention):
    """{name} with its logits multiplied by ``mup_scale``."""

'''


def attention_code(modules: bool, subclasses: Sequence[str], constant: str) -> str:
    """Source for the block.

    Args:
        modules: whether the model has attention modules of torch; else its code calls the function.
        subclasses: the file's own classes of such modules.
        constant: multiplies their logits too; "" for nothing.
    """
    if not modules:
        return _FORWARD
    kinds = {"torch.nn.MultiheadAttention": CLASS, **{n: f"Mup{n}" for n in subclasses}}
    blanks = {
        "{kinds}": f"{{{', '.join(f'{kind}: {made}' for kind, made in kinds.items())}}}",
        "{classes}": "".join(_SUBCLASS.replace("{name}", name) for name in subclasses),
        "if {needed}:": _ROW_HAS if constant else _FIXED,
        "{constant}": f" * {constant}" if constant else "",
    }
    text = _MODULES
    for blank, filled in blanks.items():
        text = text.replace(blank, filled)
    return _FORWARD + text


def in_sight(text: str) -> str:
    """A converted file's text, whose attention does at the base as at any other width.

    Where a factor is 1 it runs the author's own code, which cannot be compared with a wider run.
    """
    return text.replace(_UNSCALED, "if True:").replace(_FIXED, "if True:")
