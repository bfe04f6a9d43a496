"""The hand-written half of the zoo, continued: models in the styles that people write them."""

from __future__ import annotations

from torch import nn

from zoo.entry import Inputs
from zoo.handwritten import (
    IMAGE,
    SERIES,
    VECTOR,
    add,
    first,
    floats,
    integers,
    load,
    of,
    tokens,
)


def noisy_images() -> Inputs:
    return floats(4, 3, 16, 16), integers(4, below=100), integers(4, below=10, seed=1)


def mel_and_text() -> Inputs:
    return floats(4, 8, 16), integers(4, 6)


def numbers_and_categories() -> Inputs:
    return floats(16, 5), integers(16, 2, below=4)


def a_graph_with_edges() -> Inputs:
    return floats(12, 6), integers(2, 30, below=12), floats(30, 3, seed=1)


def three_vectors() -> Inputs:
    return floats(16, 12), floats(16, 12, seed=1), floats(16, 12, seed=2)


def _lit(n_embd: int) -> nn.Module:
    file = load("decoders")
    model: nn.Module = file.LitGPT(file.LitConfig.from_name("pico", n_embd=n_embd))
    return model


# --- decoders ------------------------------------------------------------------------------------
add("decoders:SpeedrunGPT", {"dim": 32}, tokens())
add("decoders:LitGPT", {"n_embd": 32}, tokens(), build=_lit)
add("decoders:DeepSeek", {"dim": 32}, tokens())
add("decoders:fixed_rank", {"dim": 32}, tokens())
add("decoders:DiffTransformer", {"width": 32}, tokens())
add("decoders:SigmoidAttention", {"width": 32}, tokens())
add("decoders:MixtureOfDepths", {"dim": 32}, tokens())

# --- generative and implicit ---------------------------------------------------------------------
add("generative:DiT", {"hidden_size": 32}, noisy_images)
add("generative:VQVAE", {"hidden": 32}, IMAGE, output=first)
add("generative:EnergyModel", {"width": 32}, VECTOR)
add("generative:NeRF", {"W": 32}, lambda: (floats(16, 3), floats(16, 3, seed=1)))
add("generative:Siren", {"hidden_features": 32}, of(16, 2))
add("generative:ADMUNet", {"model_channels": 16}, lambda: noisy_images()[:2])

# --- series --------------------------------------------------------------------------------------
add("sequences:WaveNet", {"residual": 32, "skip": 32}, tokens())
add("sequences:Hyena", {"d_model": 32}, tokens())
add("sequences:Retention", {"dim": 32}, tokens())
add("sequences:GatedLinearAttention", {"dim": 32}, tokens())
add("sequences:Whisper", {"n_state": 32}, mel_and_text)
add("sequences:TemporalFusion", {"hidden": 32}, SERIES)

# --- tables, graphs, points, memories, containers ------------------------------------------------
add("assorted:FTTransformer", {"d_token": 32}, numbers_and_categories)
add("assorted:EinopsViT", {"dim": 32}, IMAGE)
add("assorted:MPNN", {"hidden": 32}, a_graph_with_edges)
add("assorted:GraphTransformer", {"dim": 32}, a_graph_with_edges)
add("assorted:PointNet", {"width": 32}, of(4, 3, 10))
add("assorted:ProductKeyMemory", {"dim": 32}, VECTOR)
add("assorted:Containers", {"width": 32}, VECTOR, output=lambda out: out["a"])
add("assorted:Scripted", {"width": 32}, VECTOR)
add("assorted:SigLIP", {"width": 32}, lambda: (floats(16, 12), integers(16, 7)),
    output=lambda out: out.logits)  # fmt: skip
add("assorted:growing_siglip", {"width": 32}, lambda: (floats(16, 12), integers(16, 7)),
    output=lambda out: out.logits)  # fmt: skip
add("assorted:HiddenDims", {"hidden_dims": [64, 32]}, VECTOR)
add("assorted:NeuralODE", {"hidden": 32}, VECTOR)
add("assorted:TripletNet", {"width": 32}, three_vectors, output=lambda out: out["embedding"])

# --- where a fault was found, and what no other model has ----------------------------------------
add("unseen:SortedMoE", {"dim": 32}, tokens())
add("unseen:SinkAttention", {"dim": 32}, tokens())
add("unseen:PixelCNN", {"width": 16}, of(4, 3, 8, 8))
add("unseen:PointerNetwork", {"embed": 32, "hidden": 32}, SERIES)
add("unseen:SpatialTransformer", {"width": 16}, IMAGE)
add("unseen:BinaryNet", {"width": 16}, VECTOR, refusal="a matrix is kept in a vector")
add("unseen:TopKAutoencoder", {"latents": 32}, VECTOR,
    refusal="a fixed number of latents feed the decoder at any width")  # fmt: skip
add("unseen:GraphNet", {"hidden": 32}, lambda: a_graph_with_edges()[:2])
add("unseen:DuelingNoisyNet", {"hidden": 32}, VECTOR)
add("unseen:Monarch", {"width": 32}, VECTOR)
add("unseen:FactorizationMachine", {"dim": 16}, tokens(16, 3))
add("unseen:MinGRU", {"dim": 32}, tokens())
add("unseen:SetAttention", {"dim": 32}, SERIES)
add("unseen:RandomGate", {"width": 32}, VECTOR)
