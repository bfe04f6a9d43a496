"""The hand-written half of the zoo: every file of ``zoo/models``, as its author would write it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from zoo.entry import Entry, Inputs, register

MODELS = Path(__file__).parent / "models"


@cache
def load(file: str) -> ModuleType:
    """A model file as a module of its own, under a name that nothing else has."""
    name = f"zoo_models_{file}"
    spec = importlib.util.spec_from_file_location(name, MODELS / f"{file}.py")
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(file: str, name: str) -> Callable[..., nn.Module]:
    return lambda **knobs: getattr(load(file), name)(**knobs)


def add(
    spec: str,
    base: Mapping[str, Any],
    inputs: Callable[[], Inputs],
    *,
    build: Callable[..., nn.Module] | None = None,
    output: Callable[[Any], Tensor] | None = None,
    fields: Mapping[str, str] = MappingProxyType({}),
    refusal: str = "",
) -> None:
    """Register ``file:Class``; the class is built from the knobs unless ``build`` says how."""
    file, name = spec.split(":")
    register(
        Entry(
            name=f"{file}:{name}",
            origin="hand-written",
            build=build or _build(file, name),
            base=base,
            inputs=inputs,
            output=output,
            path=f"{MODELS / file}.py:{name}",
            fields=fields,
            expects_refusal=refusal,
        )
    )


def floats(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


def integers(*sizes: int, below: int = 64, seed: int = 0) -> Tensor:
    return torch.randint(below, sizes, generator=torch.Generator().manual_seed(seed))


def of(*sizes: int) -> Callable[[], Inputs]:
    """One tensor of floats."""
    return lambda: (floats(*sizes),)


def tokens(batch: int = 4, length: int = 12) -> Callable[[], Inputs]:
    """Token ids below 64."""
    return lambda: (integers(batch, length),)


def two_texts() -> Inputs:
    return integers(4, 9), integers(4, 7, seed=1)


def two_vectors() -> Inputs:
    return floats(16, 12), floats(16, 12, seed=1)


def a_dict() -> Inputs:
    return ({"tokens": integers(4, 7), "features": floats(4, 8)},)


def a_batch() -> Inputs:
    return (load("interfaces").Batch(integers(4, 7), floats(4, 8)),)


def a_graph() -> Inputs:
    return floats(12, 6), integers(2, 30, below=12)


def first(result: Any) -> Tensor:
    output: Tensor = result[0]
    return output


def second(result: Any) -> Tensor:
    output: Tensor = result[1]
    return output


IMAGE = of(4, 3, 16, 16)
VECTOR = of(16, 12)
SERIES = of(4, 7, 6)

# --- convolutions --------------------------------------------------------------------------------
add("convs:Conv1dNet", {"width": 16}, of(4, 2, 32))
add("convs:Conv3dNet", {"width": 16}, of(2, 3, 4, 8, 8))
add("convs:GroupedNet", {"width": 32}, IMAGE)
add("convs:GroupSizeNet", {"width": 32}, IMAGE)
add("convs:DepthwiseSqueezeExcite", {"width": 16}, IMAGE)
add("convs:ConvNeXt", {"dim": 16}, IMAGE)
add("convs:ConvAutoEncoder", {"width": 16}, IMAGE)
add("convs:GroupedTransposed", {"width": 32}, of(2, 8, 16))
add("convs:UNet", {"width": 16}, IMAGE)
add("convs:DenseNet", {"growth": 16}, IMAGE)
add("convs:ShuffleNet", {"width": 32}, IMAGE)
add("convs:PixelShuffleNet", {"width": 16}, of(4, 3, 8, 8))

# --- normalisations ------------------------------------------------------------------------------
add("norms:HandNorms", {"width": 32}, VECTOR)
add("norms:TorchNorms", {"width": 32}, VECTOR)
add("norms:ImageNorms", {"width": 16}, of(4, 3, 8, 8))
add("norms:WeightNormMLP", {"width": 32}, VECTOR)
add("norms:ParametrizedWeightNormMLP", {"width": 32}, VECTOR)
add("norms:HandWeightNormMLP", {"width": 32}, VECTOR)
add("norms:WeightStandardisedNet", {"width": 16}, IMAGE)
add("norms:SpectralNormCritic", {"width": 32}, of(4, 3, 8, 8))
add("norms:ParametrizedSpectralNormMLP", {"width": 32}, VECTOR)

# --- recurrent networks --------------------------------------------------------------------------
add("recurrent:LSTMTagger", {"hidden": 32}, tokens(4, 8))
add("recurrent:ProjectedLSTM", {"hidden": 64, "proj": 32}, of(4, 7, 8))
add("recurrent:FixedProjectionLSTM", {"hidden": 32}, of(4, 7, 8))
add("recurrent:GRUSeq2Seq", {"hidden": 32}, two_texts)
add("recurrent:VanillaRNN", {"width": 32}, SERIES)
add("recurrent:Cells", {"width": 32}, SERIES)
add("recurrent:HandLSTM", {"hidden": 32}, SERIES)
add("recurrent:TiedWordRNN", {"width": 32}, tokens(4, 8))

# --- torch's attention ---------------------------------------------------------------------------
add("torch_attention:SelfAttention", {"d_model": 32}, tokens())
add("torch_attention:CausalWithBiasKV", {"d_model": 32}, tokens(), output=first)
add(
    "torch_attention:CrossKdimVdim",
    {"d_model": 32},
    lambda: (floats(4, 5, 8), floats(4, 6, 12), floats(4, 6, 20)),
)
add("torch_attention:WideKdim", {"d_model": 32}, lambda: (floats(4, 5, 8), floats(4, 6, 6)))
add("torch_attention:MoreHeads", {"d_model": 32}, tokens())
add("torch_attention:EncoderLM", {"d_model": 32}, tokens())
add("torch_attention:PreNormEncoder", {"d_model": 32}, tokens())
add("torch_attention:Seq2Seq", {"d_model": 32}, two_texts)
add("torch_attention:DecoderOnly", {"d_model": 32}, lambda: (floats(4, 5, 24), integers(4, 7)))

# --- mixtures of experts -------------------------------------------------------------------------
for kind in ("Dense", "Einsum", "Gathered", "Listed", "Masked", "Switch"):
    add(f"moe:{kind}MoE", {"width": 32}, VECTOR)

# --- attention by hand ---------------------------------------------------------------------------
for kind in ("Matmul", "Einsum", "OneOverD", "Unscaled", "LearnedTemperature", "Cosine", "QKNorm",
             "SoftCapped", "Linear", "CausalLinear"):  # fmt: skip
    add(f"attention:{kind}", {"width": 32}, tokens())
add("attention:TextConditioned", {"width": 32}, lambda: (floats(4, 9, 8), floats(4, 5, 12)))

# --- positions -----------------------------------------------------------------------------------
add("positions:Alibi", {"width": 32}, tokens())
add("positions:T5Encoder", {"d_model": 32, "d_ff": 64, "d_kv": 8}, tokens())
add("positions:TransformerXL", {"d_model": 32}, tokens())
add("positions:Swin", {"embed_dim": 16}, IMAGE)
add("positions:ViT", {"dim": 32}, IMAGE)
add("positions:Gemma", {"width": 32}, tokens())

# --- fewer keys than queries ---------------------------------------------------------------------
for kind in ("MultiQuery", "FixedKeyHeads", "GroupedQuery", "FusedGrowing"):
    add(f"heads:{kind}", {"dim": 32}, tokens())
add("heads:FusedFixedKeys", {"dim": 32}, tokens())
add("heads:PerHeadMaps", {"dim": 32}, VECTOR)

# --- mixers, bottlenecks, state spaces -----------------------------------------------------------
add("mixers:MLPMixer", {"dim": 32}, IMAGE)
add("mixers:GMLP", {"dim": 32}, tokens(4, 12))
add("mixers:Bottleneck", {"width": 32}, VECTOR)
add("mixers:LoRA", {"width": 32}, VECTOR)
add("mixers:MergedLoRA", {"width": 32}, VECTOR)
add("mixers:Mamba", {"width": 16}, tokens(2, 8))
add("mixers:FusedMamba", {"width": 32}, tokens(2, 8))

# --- sharing, functional calls, towers -----------------------------------------------------------
add("sharing:Albert", {"hidden": 32}, tokens())
add("sharing:ThreeWayTied", {"width": 32}, two_texts)
for kind in ("Checkpointed", "FunctionalCall", "VmapOverSamples", "VmapEnsemble"):
    add(f"sharing:{kind}", {"width": 32}, VECTOR)
add("sharing:Siamese", {"width": 32}, two_vectors)
add("sharing:Contrastive", {"width": 32}, two_vectors, output=second)
add("sharing:CLIP", {"width": 32}, lambda: (floats(4, 3, 16, 16), integers(4, 7)), output=first)

# --- what goes in and comes out ------------------------------------------------------------------
add("interfaces:DictInDictOut", {"width": 32}, a_dict, output=lambda out: out["logits"])
add("interfaces:DataclassInOut", {"width": 32}, a_batch, output=lambda out: out.logits)
add(
    "interfaces:LossInside",
    {"width": 32},
    lambda: {"tokens": integers(4, 7), "labels": integers(4, 7, seed=1)},
    output=lambda out: out.logits,
)
add("interfaces:MultiTask", {"width": 16}, IMAGE, output=lambda out: out["classes"])
add("interfaces:ActorCritic", {"hidden": 32}, VECTOR, output=lambda out: out[2])
add("interfaces:VAE", {"hidden": 32}, VECTOR, output=first)
add("interfaces:WideVAE", {"hidden": 32, "latent": 8}, VECTOR)
add(
    "interfaces:BilinearScorer",
    {"width": 16},
    lambda: (floats(16, 12), floats(16, 12, seed=1), floats(16, 6)),
)
add("interfaces:Bag", {"width": 32}, lambda: (integers(30), torch.tensor([0, 4, 11, 20])))
add("interfaces:SumBag", {"width": 32}, tokens(16, 5))
add(
    "interfaces:MaxNormEmbedding",
    {"width": 32},
    tokens(16, 5),
    refusal="rows are clipped in place where they are longer than max_norm",
)
add("interfaces:DLRM", {"dim": 16}, lambda: (floats(16, 6), integers(16, 3, below=20)))

# --- structures ----------------------------------------------------------------------------------
add("structures:DeepSets", {"width": 32}, SERIES)
add("structures:GCN", {"width": 32}, a_graph)
add("structures:GAT", {"width": 32}, a_graph)
for kind in ("Highway", "RevNet", "CustomFunction"):
    add(f"structures:{kind}", {"width": 32}, VECTOR)
add("structures:Perceiver", {"width": 32}, of(4, 9, 8))
add("structures:DETR", {"width": 32}, IMAGE, output=lambda out: out["logits"])
add(
    "structures:HyperNetwork",
    {"width": 8},
    lambda: (floats(16, 6), floats(16, 4)),
)
add("structures:FiLM", {"width": 32}, lambda: (floats(16, 12), floats(16, 4)))
add(
    "structures:DiffusionUNet",
    {"channels": 16},
    lambda: (floats(2, 3, 8, 8), torch.tensor([3, 40])),
)
add("structures:DCGANGenerator", {"ngf": 16}, of(4, 12, 1, 1))
add("structures:KAN", {"width": 16}, of(16, 6))

# --- where the scale is kept ---------------------------------------------------------------------
for kind in (
    "Attribute", "TensorAttribute", "Property", "StaticMethod", "ClassMethod", "Lambda",
    "FreeFunction", "ScaleArgument", "Partial", "Decorated", "DecoratedForward", "DefaultSDPA",
    "GivenSDPA", "Flex", "FlexScaled", "ScaledInit", "Baddbmm", "SqrtTensor",
):  # fmt: skip
    add(f"scales:{kind}", {"width": 32}, tokens())


# --- how a width is set --------------------------------------------------------------------------
def _nested(d_model: int) -> nn.Module:
    file = load("knobs")
    model: nn.Module = file.NestedConfig(file.ModelConfig(block=file.BlockConfig(d_model=d_model)))
    return model


def _late(head_dim: int) -> nn.Module:
    file = load("knobs")
    model: nn.Module = file.HeadsTimesDim(file.LateConfig(head_dim=head_dim))
    return model


def _all_sizes(hidden: tuple[int, ...]) -> nn.Module:
    model: nn.Module = load("knobs").AllSizes((12, *hidden, 10))
    return model


def _by_dict(width: int) -> nn.Module:
    model: nn.Module = load("knobs").DictConfig({"width": width})
    return model


add(
    "knobs:NestedConfig",
    {"d_model": 32},
    tokens(),
    build=_nested,
    fields={"d_model": "block.d_model"},
)
add("knobs:TupleOfWidths", {"widths": (16, 32, 32)}, of(4, 3, 8, 8))
add("knobs:ListOfWidths", {"hidden_sizes": [32, 64]}, VECTOR)
add("knobs:AllSizes", {"hidden": (32, 32)}, VECTOR, build=_all_sizes)
add("knobs:WidthMult", {"width_mult": 1.0}, of(4, 3, 8, 8))
add("knobs:DerivedFields", {"dim": 32}, tokens())
add("knobs:HeadsTimesDim", {"head_dim": 8}, tokens(), build=_late)
add("knobs:PresetWithOverride", {"width": 32}, tokens())
add("knobs:MultipleOf", {"dim": 32}, tokens())
add("knobs:DictConfig", {"width": 32}, tokens(), build=_by_dict)
add("knobs:build_model", {"width": 32}, tokens())
add("knobs:EncoderDecoderWidths", {"enc_dim": 32, "dec_dim": 16}, VECTOR)
