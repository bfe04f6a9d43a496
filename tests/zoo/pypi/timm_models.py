"""Models of timm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from zoo.entry import Entry, register
from zoo.pypi.common import CLASSES, image, whole
from zoo.pypi.torchvision_on_cpu import import_torchvision


def timm(
    name: str, base: Mapping[str, Any], fixed: Mapping[str, Any], size: int = 32, title: str = ""
) -> Entry:
    """Register a model of timm, by the name of one of its presets."""

    def build(**knobs: Any) -> nn.Module:
        import_torchvision()
        import timm

        made = timm.create_model(name, num_classes=CLASSES, **fixed, **knobs)
        assert isinstance(made, nn.Module)
        return made

    return register(
        Entry(f"timm/{title or name}", "timm", build, base, lambda: (image(size),), whole)
    )


VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "num_heads": 4}
timm("vit_tiny_patch16_224", {"embed_dim": 64}, VIT, title="vit")
timm("deit3_small_patch16_224", {"embed_dim": 64}, VIT, title="deit3")
timm("beit_base_patch16_224", {"embed_dim": 64}, VIT, title="beit")
timm("eva02_tiny_patch14_224", {"embed_dim": 64}, VIT, title="eva02")
timm("convnext_atto", {"dims": (8, 16, 32, 64)}, {"depths": (1, 1, 2, 1)}, 64, title="convnext")
timm("resnet26", {"channels": (24, 48, 96, 192), "stem_width": 24}, {}, 64, title="resnet")
timm("swin_tiny_patch4_window7_224", {"embed_dim": 32},
     {"img_size": 64, "depths": (1, 1), "num_heads": (2, 4), "window_size": 4}, 64,
     title="swin")  # fmt: skip
timm("cait_xxs24_224", {"embed_dim": 64}, VIT, title="cait")
timm("xcit_nano_12_p16_224", {"embed_dim": 64}, {"img_size": 32, "patch_size": 8, "depth": 2,
     "num_heads": 4}, title="xcit")  # fmt: skip
timm("densenet121", {"growth_rate": 16}, {"block_config": (2, 2)}, 64, title="densenet")
timm("regnetx_002", {"w0": 24, "wa": 36.0}, {}, 64, title="regnetx")


def by_class(
    title: str,
    make: Callable[..., nn.Module],
    base: Mapping[str, Any],
    size: int = 32,
) -> Entry:
    """Register a model of timm that is made by its class; ``make`` gets timm.models."""

    def build(**knobs: Any) -> nn.Module:
        import_torchvision()
        import timm

        return make(timm.models, **knobs)

    return register(Entry(f"timm/{title}", "timm", build, base, lambda: (image(size),), whole))


def _mixer(models: Any, embed_dim: int, **more: Any) -> nn.Module:
    made: nn.Module = models.mlp_mixer.MlpMixer(
        img_size=32, patch_size=8, embed_dim=embed_dim, num_blocks=2, num_classes=CLASSES, **more
    )
    return made


by_class("mixer", _mixer, {"embed_dim": 64})
by_class("resmlp", lambda models, embed_dim: _mixer(
    models, embed_dim, mlp_ratio=4, block_layer=models.mlp_mixer.ResBlock,
    norm_layer=models.mlp_mixer.Affine), {"embed_dim": 64})  # fmt: skip
by_class("gmlp", lambda models, embed_dim: _mixer(
    models, embed_dim, mlp_ratio=6, block_layer=models.mlp_mixer.SpatialGatingBlock,
    mlp_layer=models.mlp_mixer.GatedMlp), {"embed_dim": 64})  # fmt: skip
by_class("convmixer", lambda models, dim: models.convmixer.ConvMixer(
    dim, 2, kernel_size=5, patch_size=4, num_classes=CLASSES), {"dim": 64})  # fmt: skip
by_class(
    "metaformer",
    lambda models, dims: models.metaformer.MetaFormer(
        depths=(1, 1, 1, 1), dims=dims, num_classes=CLASSES
    ),
    {"dims": (16, 32, 64, 128)},
    64,
)


def _efficientnet(models: Any, width_mult: float) -> nn.Module:
    builder = models._efficientnet_builder
    blocks = [["ds_r1_k3_s1_e1_c16_se0.25"], ["ir_r2_k3_s2_e6_c24_se0.25"], ["ir_r1_k5_s2_e6_c40"]]

    def rounded(channels: float) -> int:
        return builder.round_channels(channels, width_mult, 8)  # type: ignore[no-any-return]

    made: nn.Module = models.efficientnet.EfficientNet(
        builder.decode_arch_def(blocks), num_classes=CLASSES, num_features=rounded(128),
        stem_size=rounded(32), fix_stem=True, round_chs_fn=rounded, act_layer=nn.SiLU,
    )  # fmt: skip
    return made


by_class("efficientnet", _efficientnet, {"width_mult": 1.0}, 64)
