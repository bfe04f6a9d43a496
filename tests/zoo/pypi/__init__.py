"""Models from PyPI, unmodified and without weights: importing this registers them in the zoo."""

from zoo.pypi import (  # noqa: F401
    decoders,
    encoders,
    experts,
    hf_audio,
    hf_multimodal,
    hf_vision,
    seq2seq,
    state_space,
    timm_models,
    torchvision_models,
    vit_pytorch_models,
    x_transformers_models,
)
