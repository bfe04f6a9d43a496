"""Models of torchvision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from zoo.entry import Entry, register
from zoo.pypi.common import CLASSES, image, whole
from zoo.pypi.torchvision_on_cpu import import_torchvision


def torchvision(
    name: str,
    base: Mapping[str, Any],
    make: Callable[..., nn.Module],
    size: int = 32,
) -> Entry:
    """Register a model of torchvision; ``make`` gets its models module and the knobs."""

    def build(**knobs: Any) -> nn.Module:
        return make(import_torchvision().models, **knobs)

    return register(
        Entry(f"torchvision/{name}", "torchvision", build, base, lambda: (image(size),), whole)
    )


torchvision("vit", {"hidden_dim": 64, "mlp_dim": 256},
            lambda models, **knobs: models.VisionTransformer(
                image_size=32, patch_size=8, num_layers=2, num_heads=4, num_classes=CLASSES,
                **knobs))  # fmt: skip
torchvision("wide-resnet", {"width_per_group": 64},
            lambda models, **knobs: models.ResNet(
                models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=CLASSES, **knobs),
            64)  # fmt: skip
torchvision("mobilenet-v2", {"width_mult": 1.0},
            lambda models, **knobs: models.MobileNetV2(num_classes=CLASSES, **knobs),
            64)  # fmt: skip
torchvision("shufflenet", {"channels": [24, 48, 96, 192, 256]},
            lambda models, channels: models.ShuffleNetV2(
                [2, 2, 2], channels, num_classes=CLASSES), 64)  # fmt: skip
torchvision("mnasnet", {"alpha": 0.5},
            lambda models, **knobs: models.MNASNet(num_classes=CLASSES, **knobs),
            64)  # fmt: skip
torchvision("swin", {"embed_dim": 32},
            lambda models, **knobs: models.SwinTransformer(
                patch_size=[4, 4], depths=[1, 1], num_heads=[2, 4], window_size=[4, 4],
                num_classes=CLASSES, **knobs))  # fmt: skip
torchvision("densenet", {"growth_rate": 16, "num_init_features": 32},
            lambda models, **knobs: models.DenseNet(
                block_config=(2, 2), num_classes=CLASSES, **knobs), 64)  # fmt: skip
torchvision("convnext", {"width": 16},
            lambda models, width: models.ConvNeXt(
                [models.convnext.CNBlockConfig(width * 2**i, width * 2 ** (i + 1), 1)
                 for i in range(2)]
                + [models.convnext.CNBlockConfig(width * 4, None, 1)],
                num_classes=CLASSES), 64)  # fmt: skip
