"""The multiplier of torch's own attention: the logits move by it, in train and eval alike."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import automup
import cases
from automup.multihead import scale_logits

X = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(0))
Y = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1))


def attention(**settings: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(16, 2, batch_first=True, **settings)
    for name, parameter in module.named_parameters():
        if "bias" in name:  # zero at the start, but not once it is trained
            nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize("settings", [{}, {"bias": False}, {"add_bias_kv": True}], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_the_logits_move_by_exactly_the_factor(settings: dict[str, Any], training: bool) -> None:
    """log(weights) differences between keys are differences of logits: they scale by the factor."""
    plain = attention(**settings).train(training)
    scaled = copy.deepcopy(plain)
    scale_logits(scaled, 0.25)
    with torch.no_grad():
        (_, before), (_, after) = (
            m(X, Y, Y, need_weights=True, average_attn_weights=False) for m in (plain, scaled)
        )
    for weights, factor in ((before, 0.25), (after, 1.0)):
        logits = weights.log()
        weights.copy_((logits - logits[..., :1]) * factor)
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_every_path_through_torch_gives_the_same(need_weights: bool, training: bool) -> None:
    module = attention()
    scale_logits(module, 0.25)
    plain = attention()
    with torch.no_grad():  # the same by hand: the query's weight and bias times the factor
        plain.in_proj_weight[:16] *= 0.25
        plain.in_proj_bias[:16] *= 0.25
        outputs = [
            m.train(training)(X, X, X, need_weights=need_weights)[0] for m in (module, plain)
        ]
    torch.testing.assert_close(*outputs)


def test_other_instances_state_dict_copies_and_pickles() -> None:
    module, other = attention(), attention()
    before = other(X, X, X)[0]
    scale_logits(module, 0.25)
    assert torch.equal(other(X, X, X)[0], before)
    assert list(module.state_dict()) == list(other.state_dict())
    assert isinstance(module, nn.MultiheadAttention)
    output = module(X, X, X)[0]
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(X, X, X)[0], output)


class Encoder(nn.Module):
    """A language model of torch's own layers."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, dropout=0.0)
        self.layers = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(width, 256)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.layers(self.embed(tokens)))
        return output


def test_torchs_encoder_in_mup() -> None:
    mu = automup.parametrize(Encoder, inputs=(cases.TOKENS,))
    (site,) = {(s.kind, s.exponents) for s in mu.plan(128).sites}
    assert site == ("attention", (("width/4", -0.5),))
    model = mu(128)
    with torch.no_grad():
        train, evaluated = (model.train(mode)(cases.TOKENS) for mode in (True, False))
    torch.testing.assert_close(train, evaluated)


class Whole(nn.Module):
    """torch's encoder and decoder: self attention and cross attention."""

    def __init__(self, width: int = 32, first: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, width)
        self.body = nn.Transformer(
            width, 4, 1, 1, 2 * width, dropout=0.0, batch_first=True, norm_first=first
        )
        self.head = nn.Linear(width, 256)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        output: torch.Tensor = self.head(self.body(x, x.flip(1)))
        return output


def by_hand(model: nn.Module, factor: float) -> nn.Module:
    """The author's model with the query's third of each projection times a factor."""
    twin = Whole(model.embed.embedding_dim).double()  # type: ignore[union-attr,arg-type]
    twin.load_state_dict(model.state_dict())
    for module in twin.modules():
        if isinstance(module, nn.MultiheadAttention):
            for tensor in (module.in_proj_weight, module.in_proj_bias):
                tensor.data[: module.embed_dim] *= factor
    return twin


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_every_logit_of_torchs_transformer_moves_by_the_factor(training: bool) -> None:
    plain = Whole(128).double().train(training)
    before = plain(cases.TOKENS)
    mu = automup.parametrize(Whole, inputs=(cases.TOKENS,))
    model = mu(128).double().train(training)
    for name, parameter in model.named_parameters():
        if "in_proj_bias" in name:
            nn.init.normal_(parameter)
    for factor in (0.5, 0.5 * 1.01):
        expected = by_hand(model, factor).train(training)(cases.TOKENS)
        torch.testing.assert_close(model(cases.TOKENS), expected, rtol=1e-11, atol=1e-12)
        for module in model.modules():
            if isinstance(module, nn.MultiheadAttention):
                scale_logits(module, 1.01)
    assert torch.equal(plain(cases.TOKENS), before)


def test_torchs_transformer_compiles_as_one_graph() -> None:
    mu = automup.parametrize(Whole, inputs=(cases.TOKENS,))
    plain, model = Whole(128), mu(128)
    before = torch.compile(plain, backend="eager", fullgraph=True)(cases.TOKENS)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(cases.TOKENS), model(cases.TOKENS))
    torch.testing.assert_close(plain(cases.TOKENS), before)
