"""Where the hand-written models need a multiplier, and of what power of which size.

Fans and movement are measured by the zoo's own oracle; what it does not see is where a factor is
due. The exponents here are derived on paper: a sum over n aligned products has
exponent 1, of normalised vectors 0; 1/sqrt(n) beside it takes 1/2 away, 1/n takes 1.
"""

from __future__ import annotations

import pytest
import torch

import automup
import zoo.handwritten
import zoo.styles  # noqa: F401  (both register)
from zoo.entry import ZOO, Entry

ATTENTION = ("attention", -0.5)
UNSCALED = ("attention", -1.0)
TIED = ("readout", -1.0)
ROOT = ("scale", -0.5)

SITES: dict[str, set[tuple[str, float]]] = {
    # no logits over an infinite axis, or logits that are neutral as they are
    "convs:UNet": set(),
    "norms:HandNorms": set(),  # |x| grows as sqrt(d), as the sqrt(d) that ScaleNorm multiplies by
    "norms:ImageNorms": set(),
    "recurrent:LSTMTagger": set(),
    "torch_attention:MoreHeads": set(),  # the head size is fixed
    "heads:FixedKeyHeads": set(),
    "attention:OneOverD": set(),
    "attention:Cosine": set(),
    "attention:Linear": set(),  # q is divided by its own contraction with the sum of k
    "sharing:CLIP": set(),
    "sharing:Contrastive": set(),
    "mixers:MLPMixer": set(),
    "mixers:LoRA": set(),
    "moe:EinsumMoE": set(),
    "structures:DeepSets": set(),  # the set is finite
    "structures:KAN": set(),
    "structures:FiLM": set(),
    # logits over sqrt(head size)
    "torch_attention:SelfAttention": {ATTENTION},
    "torch_attention:CausalWithBiasKV": {ATTENTION},
    "torch_attention:CrossKdimVdim": {ATTENTION},
    "torch_attention:DecoderOnly": {ATTENTION},
    "attention:Matmul": {ATTENTION},
    "attention:Einsum": {ATTENTION},
    "attention:QKNorm": {ATTENTION},  # RMS-normalised: entries of size 1, so the sum is d
    "attention:SoftCapped": {ATTENTION},
    "attention:LearnedTemperature": {ATTENTION},
    "attention:TextConditioned": {ATTENTION},
    "positions:Alibi": {ATTENTION},
    "positions:Swin": {ATTENTION},
    "positions:ViT": {ATTENTION},
    "heads:MultiQuery": {ATTENTION},
    "heads:FusedGrowing": {ATTENTION},
    "scales:Partial": {ATTENTION},
    "scales:Flex": {ATTENTION},
    "scales:SqrtTensor": {ATTENTION},
    # logits without any scale
    "attention:Unscaled": {UNSCALED},
    "recurrent:GRUSeq2Seq": {UNSCALED},
    "scales:ScaledInit": {UNSCALED},  # what the init of q does is undone by training
    # a table that is read out, and embeddings times sqrt(d)
    "recurrent:TiedWordRNN": {TIED},
    "sharing:ThreeWayTied": {TIED},
    "torch_attention:EncoderLM": {ROOT, ATTENTION},
    "positions:Gemma": {ROOT, ATTENTION, TIED},
    "positions:T5Encoder": {UNSCALED, ("readout", -0.5)},  # its own d^-1/2 takes a half away
    # a normalised weight has lost its size: what its role asks of it is due beside it
    "norms:WeightNormMLP": {("readout", -0.5)},
    "norms:ParametrizedWeightNormMLP": {("readout", -0.5)},
    "norms:HandWeightNormMLP": set(),  # the hidden layer alone: its rows have norm 1 as they should
    "norms:WeightStandardisedNet": set(),  # a norm follows
    "norms:ParametrizedSpectralNormMLP": {("readout", 0.5)},  # |W| of an input layer is sqrt(n)
    "structures:Perceiver": {ATTENTION},
    "interfaces:DLRM": {UNSCALED},
    "unseen:SetAttention": {ATTENTION},  # by the root of the whole width, with heads as many
    # a sum over features that is no attention
    "structures:GAT": {("reduction", -1.0)},
    "unseen:FactorizationMachine": {("reduction", -1.0)},
    # a random table of size n^-1/2, which nothing trains
    "unseen:RandomGate": {("scale", 0.5)},
    "unseen:SinkAttention": set(),  # the head size is fixed
    "unseen:SortedMoE": set(),
}


@pytest.mark.parametrize("name", SITES)
def test_sites(name: str) -> None:
    entry = ZOO[name]
    mu = automup.parametrize(entry.build, base=dict(entry.base), inputs=entry.inputs())
    sites = mu.plan(**entry.knobs(2)).sites
    assert {(s.kind, exponent) for s in sites for _, exponent in s.exponents} == SITES[name]
    assert not mu.plan(**entry.base).sites or all(
        s.factor == 1.0 for s in mu.plan(**entry.base).sites
    )


@pytest.mark.parametrize("name", [n for n in ZOO if n.startswith("torch_attention:")])
def test_eval_and_train_agree(name: str) -> None:
    """torch's fast path for inference goes by Python; the multiplier must be in both."""
    entry = ZOO[name]
    mu = automup.parametrize(entry.build, base=dict(entry.base), inputs=entry.inputs())
    model = mu(**entry.knobs(4))
    for layer in model.modules():
        if isinstance(layer, torch.nn.MultiheadAttention):  # sharp logits, or nobody would see
            with torch.no_grad():
                weight = layer.in_proj_weight
                (layer.q_proj_weight if weight is None else weight).mul_(8)
    assert torch.allclose(_run(entry, model.train()), _run(entry, model.eval()), atol=1e-5)


def _run(entry: Entry, model: torch.nn.Module) -> torch.Tensor:
    inputs = entry.inputs()
    assert isinstance(inputs, tuple)
    with torch.no_grad():
        returned = model(*inputs)
    output: torch.Tensor = entry.output(returned) if entry.output else returned
    return output
