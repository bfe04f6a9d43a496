"""Vision models of transformers."""

from __future__ import annotations

from zoo.pypi.common import BATCH, CLASSES, hf, image, noise, pixels, token_ids

VIT = {
    "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
    "num_labels": CLASSES,
}  # fmt: skip
WIDTH = {"hidden_size": 64, "intermediate_size": 256}

for kind in ("eager", "sdpa"):
    hf(f"vit-{kind}", "ViTForImageClassification", "ViTConfig", WIDTH, pixels, fixed=VIT,
       attention=kind)  # fmt: skip
hf("deit", "DeiTForImageClassification", "DeiTConfig", WIDTH, pixels, fixed=VIT)
hf("beit", "BeitForImageClassification", "BeitConfig", WIDTH, pixels,
   fixed={**VIT, "use_relative_position_bias": True})  # fmt: skip
hf("dinov2", "Dinov2ForImageClassification", "Dinov2Config", {"hidden_size": 64}, pixels,
   fixed={**VIT, "mlp_ratio": 4})  # fmt: skip
MIM = {**{k: v for k, v in VIT.items() if k != "num_labels"}, "encoder_stride": 8}
for kind in ("ViT", "DeiT"):
    hf(f"{kind.lower()}-masked", f"{kind}ForMaskedImageModeling", f"{kind}Config", WIDTH, pixels,
       "reconstruction", fixed=MIM)  # fmt: skip
hf("beit-masked", "BeitForMaskedImageModeling", "BeitConfig", WIDTH, pixels,
   fixed={**MIM, "use_mask_token": True, "vocab_size": 32})  # fmt: skip
hf("vit-mae", "ViTMAEForPreTraining", "ViTMAEConfig",
   {**WIDTH, "decoder_hidden_size": 32, "decoder_intermediate_size": 128}, pixels,
   fixed={**{k: v for k, v in VIT.items() if k != "num_labels"}, "decoder_num_hidden_layers": 1,
          "decoder_num_attention_heads": 4})  # fmt: skip
hf("vit-msn", "ViTMSNForImageClassification", "ViTMSNConfig", WIDTH, pixels, fixed=VIT)
hf("ijepa", "IJepaForImageClassification", "IJepaConfig", WIDTH, pixels, fixed=VIT)
SWIN = {"image_size": 32, "patch_size": 4, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4,
        "num_labels": CLASSES}  # fmt: skip
hf("swin", "SwinForImageClassification", "SwinConfig", {"embed_dim": 32}, pixels, fixed=SWIN)
hf("swinv2", "Swinv2ForImageClassification", "Swinv2Config", {"embed_dim": 32}, pixels, fixed=SWIN)
SIZES = {"hidden_sizes": [16, 32, 64, 128]}
hf("convnext", "ConvNextForImageClassification", "ConvNextConfig", SIZES, pixels,
   fixed={"depths": [1, 1, 1, 1], "num_labels": CLASSES, "image_size": 32})  # fmt: skip
hf("convnextv2", "ConvNextV2ForImageClassification", "ConvNextV2Config", SIZES, pixels,
   fixed={"depths": [1, 1, 1, 1], "num_labels": CLASSES, "image_size": 32})  # fmt: skip
hf("resnet", "ResNetForImageClassification", "ResNetConfig",
   {"embedding_size": 16, "hidden_sizes": [32, 64]}, pixels,
   fixed={"depths": [1, 1], "num_labels": CLASSES})  # fmt: skip
hf("regnet", "RegNetForImageClassification", "RegNetConfig",
   {"embedding_size": 16, "hidden_sizes": [32, 64]}, pixels,
   fixed={"depths": [1, 1], "groups_width": 16, "num_labels": CLASSES})  # fmt: skip
hf("segformer", "SegformerForSemanticSegmentation", "SegformerConfig",
   {"hidden_sizes": [16, 32, 64, 128], "decoder_hidden_size": 64}, lambda: {
       "pixel_values": image(64)},
   fixed={"depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 4],
          "num_labels": CLASSES})  # fmt: skip
hf("pvt", "PvtForImageClassification", "PvtConfig", {"hidden_sizes": [16, 32, 64, 128]},
   lambda: {"pixel_values": image(64)},
   fixed={"image_size": 64, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 4],
          "num_labels": CLASSES})  # fmt: skip
hf("poolformer", "PoolFormerForImageClassification", "PoolFormerConfig",
   {"hidden_sizes": [16, 32, 64, 128]}, lambda: {"pixel_values": image(64)},
   fixed={"depths": [1, 1, 1, 1], "num_labels": CLASSES})  # fmt: skip
hf("mobilevit", "MobileViTForImageClassification", "MobileViTConfig",
   {"hidden_sizes": [48, 64, 80], "neck_hidden_sizes": [16, 32, 48, 64, 80, 96, 128]},
   lambda: {"pixel_values": image(64)},
   fixed={"image_size": 64, "num_labels": CLASSES, "num_attention_heads": 4})  # fmt: skip
hf("videomae", "VideoMAEForVideoClassification", "VideoMAEConfig", WIDTH,
   lambda: {"pixel_values": noise(BATCH, 4, 3, 32, 32)},
   fixed={**VIT, "num_frames": 4, "tubelet_size": 2})  # fmt: skip
hf("imagegpt", "ImageGPTForCausalImageModeling", "ImageGPTConfig", {"n_embd": 64},
   token_ids,
   fixed={"vocab_size": 250, "n_layer": 2, "n_head": 4, "n_positions": 64,
          "use_cache": False})  # fmt: skip
hf("focalnet", "FocalNetForImageClassification", "FocalNetConfig", {"embed_dim": 32}, pixels,
   fixed={"image_size": 32, "depths": [1, 1], "focal_levels": [2, 2], "focal_windows": [3, 3],
          "hidden_sizes": [32, 64], "num_labels": CLASSES})  # fmt: skip
