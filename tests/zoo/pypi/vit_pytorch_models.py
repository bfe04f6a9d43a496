"""Models of vit-pytorch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from zoo.entry import Entry, Inputs, register
from zoo.pypi.common import BATCH, CLASSES, image, noise, whole
from zoo.pypi.torchvision_on_cpu import import_torchvision

VIT = {"image_size": 32, "patch_size": 8, "num_classes": CLASSES, "depth": 2, "heads": 4}
WIDTH = {"dim": 64, "dim_head": 16, "mlp_dim": 256}


def one_image() -> Inputs:
    return (image(),)


def one_large_image() -> Inputs:
    return (image(64),)


def vit_pytorch(
    name: str,
    module: str,
    cls: str,
    base: Mapping[str, Any],
    fixed: Mapping[str, Any],
    inputs: Any = one_image,
    refused: str = "",
) -> Entry:
    def build(**knobs: Any) -> nn.Module:
        import_torchvision()
        made = getattr(importlib.import_module(f"vit_pytorch.{module}"), cls)(**fixed, **knobs)
        assert isinstance(made, nn.Module)
        return made

    return register(
        Entry(
            f"vit-pytorch/{name}",
            "vit-pytorch",
            build,
            base,
            inputs,
            whole,
            expects_refusal=refused,
        )
    )


vit_pytorch("vit", "vit", "ViT", WIDTH, VIT)
vit_pytorch("simple-vit", "simple_vit", "SimpleViT", WIDTH, VIT)
vit_pytorch("qk-norm", "simple_vit_with_qk_norm", "SimpleViT", WIDTH, VIT)
vit_pytorch("registers", "simple_vit_with_register_tokens", "SimpleViT", WIDTH, VIT)
vit_pytorch("flash", "simple_flash_attn_vit", "SimpleViT", WIDTH, {**VIT, "use_flash": True})
vit_pytorch("deep-vit", "deepvit", "DeepViT", WIDTH, VIT)
vit_pytorch("cait", "cait", "CaiT", WIDTH, {**VIT, "cls_depth": 1})
vit_pytorch("parallel", "parallel_vit", "ViT", WIDTH, VIT)
vit_pytorch("small-data", "vit_for_small_dataset", "ViT", WIDTH, VIT)
vit_pytorch("rotary", "rvt", "RvT", {**WIDTH, "dim_head": 64}, {**VIT, "image_size": 40},
            lambda: (image(40),))  # fmt: skip
vit_pytorch("patch-merger", "vit_with_patch_merger", "ViT", WIDTH,
            {**VIT, "patch_merge_layer": 1, "patch_merge_num_tokens": 8})  # fmt: skip
vit_pytorch("normalized", "normalized_vit", "nViT", WIDTH, VIT,
            refused="its weights are normalised over the width at every step")  # fmt: skip
vit_pytorch("cct", "cct", "CCT", {"embedding_dim": 64},
            {"img_size": 32, "n_conv_layers": 1, "kernel_size": 7, "stride": 2, "padding": 3,
             "num_layers": 2, "num_heads": 4, "mlp_ratio": 3.0, "num_classes": CLASSES,
             "positional_embedding": "learnable"})  # fmt: skip
vit_pytorch("nest", "nest", "NesT", {"dim": 32},
            {"image_size": 32, "patch_size": 4, "heads": 2, "num_hierarchies": 2,
             "block_repeats": (1, 1), "num_classes": CLASSES})  # fmt: skip
vit_pytorch("cross-vit", "cross_vit", "CrossViT",
            {"sm_dim": 32, "lg_dim": 64, "sm_enc_mlp_dim": 128, "lg_enc_mlp_dim": 256,
             "sm_enc_dim_head": 16, "lg_enc_dim_head": 16, "cross_attn_dim_head": 16},
            {"image_size": 32, "num_classes": CLASSES, "depth": 1, "sm_patch_size": 8,
             "sm_enc_depth": 1, "sm_enc_heads": 2, "lg_patch_size": 16, "lg_enc_depth": 1,
             "lg_enc_heads": 2, "cross_attn_depth": 1, "cross_attn_heads": 2})  # fmt: skip
vit_pytorch("xcit", "xcit", "XCiT", WIDTH,
            {**VIT, "cls_depth": 1, "local_patch_kernel_size": 3})  # fmt: skip
vit_pytorch("vivit", "vivit", "ViViT", WIDTH,
            {"image_size": 32, "image_patch_size": 8, "frames": 4, "frame_patch_size": 2,
             "num_classes": CLASSES, "spatial_depth": 1, "temporal_depth": 1, "heads": 4},
            lambda: (noise(BATCH, 3, 4, 32, 32),))  # fmt: skip
vit_pytorch("max-vit", "max_vit", "MaxViT",
            {"dim": 32, "dim_conv_stem": 32, "dim_head": 16},
            {"num_classes": CLASSES, "depth": (1, 1), "window_size": 4},
            lambda: (image(32),))  # fmt: skip
