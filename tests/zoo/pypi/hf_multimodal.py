"""Models of transformers that read more than one kind of input."""

from __future__ import annotations

from typing import Any

import torch

from zoo.entry import Inputs
from zoo.pypi.common import BATCH, VOCAB, hf, image, tokens

LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**LAYERS, "vocab_size": VOCAB, "max_position_embeddings": 64, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
VISION = {**LAYERS, "image_size": 32, "patch_size": 8}


def _pair(width: int, **_: Any) -> dict[str, Any]:
    """The sizes of a text model and of a vision model of one width."""
    sizes = {"hidden_size": width, "intermediate_size": 4 * width}
    return {"text_config": {**TEXT, **sizes}, "vision_config": {**VISION, **sizes}}


def _projected(width: int) -> dict[str, Any]:
    return {**_pair(width), "projection_dim": width // 2}


def text_and_image() -> Inputs:
    return {"input_ids": tokens(), "pixel_values": image()}


for kind in ("eager", "sdpa"):
    hf(f"clip-{kind}", "CLIPModel", "CLIPConfig", {"width": 64}, text_and_image,
       "logits_per_image", fixed={}, widths=_projected, attention=kind)  # fmt: skip
hf("siglip", "SiglipModel", "SiglipConfig", {"width": 64}, text_and_image, "logits_per_image",
   fixed={}, widths=_pair)  # fmt: skip
hf("altclip", "AltCLIPModel", "AltCLIPConfig", {"width": 64}, text_and_image, "logits_per_image",
   fixed={}, widths=lambda width: {
       **_projected(width),
       "text_config": {**_pair(width)["text_config"], "project_dim": width}})  # fmt: skip


def _blip(width: int) -> dict[str, Any]:
    made = _pair(width)
    made["text_config"] |= {"encoder_hidden_size": width, "use_cache": False}
    return {**made, "projection_dim": width // 2, "image_text_hidden_size": width}


hf("blip", "BlipForConditionalGeneration", "BlipConfig", {"width": 64}, text_and_image,
   fixed={}, widths=_blip)  # fmt: skip


def _llava(width: int) -> dict[str, Any]:
    sizes = {"hidden_size": width, "intermediate_size": 3 * width}
    text = {**TEXT, **sizes, "model_type": "llama", "num_key_value_heads": 2, "use_cache": False}
    vision = {**VISION, **sizes, "model_type": "clip_vision_model", "projection_dim": width}
    return {"text_config": text, "vision_config": vision}


def text_around_image() -> Inputs:
    """Sixteen places of the text are the image's patches."""
    ids = tokens(20)
    ids[:, 2:18] = 3
    return {"input_ids": ids, "pixel_values": image()}


hf("llava", "LlavaForConditionalGeneration", "LlavaConfig", {"width": 64}, text_around_image,
   fixed={"image_token_index": 3, "vision_feature_layer": -1}, widths=_llava)  # fmt: skip


def _paligemma(width: int) -> dict[str, Any]:
    made = _llava(width)
    made["text_config"] |= {"model_type": "gemma", "head_dim": width // 4}
    made["vision_config"] |= {"model_type": "siglip_vision_model"}
    return {**made, "projection_dim": width, "hidden_size": width}


hf("paligemma", "PaliGemmaForConditionalGeneration", "PaliGemmaConfig", {"width": 64},
   text_around_image, fixed={"image_token_index": 3}, widths=_paligemma)  # fmt: skip
hf("git", "GitForCausalLM", "GitConfig", {"width": 64}, text_and_image, fixed=TEXT,
   widths=lambda width: {"hidden_size": width, "intermediate_size": 4 * width, "use_cache": False,
                         "vision_config": _pair(width)["vision_config"]})  # fmt: skip
hf("vilt", "ViltForQuestionAnswering", "ViltConfig",
   {"hidden_size": 64, "intermediate_size": 256},
   lambda: {**text_and_image(), "pixel_mask": torch.ones(BATCH, 32, 32, dtype=torch.long)},
   fixed={**TEXT, **VISION, "num_labels": 10, "max_image_length": 16})  # fmt: skip


def _idefics3(width: int) -> dict[str, Any]:
    made = _llava(width)
    made["vision_config"] = {**VISION, "hidden_size": width, "intermediate_size": 3 * width}
    return made


def _owl(width: int) -> dict[str, Any]:
    return _projected(width)


hf("owlvit", "OwlViTModel", "OwlViTConfig", {"width": 64}, text_and_image, "logits_per_image",
   fixed={}, widths=_owl)  # fmt: skip
