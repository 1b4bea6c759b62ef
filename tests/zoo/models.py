"""The zoo: networks nobody here wrote, made by configuration with random weights, at small inputs where they can."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ZooModel:
    """One network of the zoo.

    Args:
        name: `torchvision/resnet18`: where it comes from, and what it is called there.
        shape: the image it is given, without the batch; or the length of a text (below 1000), or of a sound.
        options: what its maker is given beside the name.
        config: for transformers, the entries of its configuration.
    """

    name: str
    shape: tuple[int, ...] = (3, 64, 64)
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def source(self) -> str:
        """`torchvision`, `timm` or `transformers`."""
        return self.name.partition("/")[0]

    @property
    def model_name(self) -> str:
        """The name within its source."""
        return self.name.partition("/")[2]

    def make(self, seed: int = 0) -> nn.Module:
        """The network with random weights, in evaluation mode."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return MAKERS[self.source](self).eval()

    def inputs(self, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs: floats for images and sounds, small integers for texts."""
        random = torch.Generator().manual_seed(seed)
        if len(self.shape) == 1 and self.shape[0] < 1000:
            return (torch.randint(5, 90, (batch, *self.shape), generator=random),)
        return (torch.randn(batch, *self.shape, generator=random),)


def _torchvision(model: ZooModel) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(model.model_name, weights=None, **{"num_classes": CLASSES, **model.options})


def _timm(model: ZooModel) -> nn.Module:
    import timm

    return timm.create_model(model.model_name, pretrained=False, **{"num_classes": CLASSES, **model.options})


class Tensors(nn.Module):
    """A transformers model that takes one positional tensor and gives a tuple of tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        """The model's outputs as plain tensors."""
        outputs = self.model(x, return_dict=False)
        return outputs if isinstance(outputs, Tensor) else tuple(v for v in outputs if isinstance(v, Tensor))


def _transformers(model: ZooModel) -> nn.Module:
    transformers = importlib.import_module("transformers")
    cls = getattr(transformers, model.model_name)
    return Tensors(cls(cls.config_class(**model.config)))


MAKERS: dict[str, Callable[[ZooModel], nn.Module]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "transformers": _transformers,
}

CLASSES = 100
"""Classes of the networks, so that heads of small ones do not outweigh the rest."""


def torchvision_models() -> list[ZooModel]:
    """Every classification model of torchvision."""
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    return [ZooModel(f"torchvision/{name}", *TORCHVISION.get(name, ((3, 64, 64),))) for name in names]


TORCHVISION: dict[str, Any] = {
    "inception_v3": ((3, 96, 96), {"init_weights": False}),
    "googlenet": ((3, 64, 64), {"init_weights": False}),
    "maxvit_t": ((3, 224, 224),),
    "vit_b_16": ((3, 32, 32), {"image_size": 32}),
    "vit_l_16": ((3, 32, 32), {"image_size": 32}),
    "vit_b_32": ((3, 64, 64), {"image_size": 64}),
    "vit_l_32": ((3, 64, 64), {"image_size": 64}),
    "vit_h_14": ((3, 28, 28), {"image_size": 28}),
}
"""Inputs and options where they are not the usual ones."""

S64 = (3, 64, 64)
S96 = (3, 96, 96)
S224 = (3, 224, 224)

TIMM = {
    S64: """
        resnet26d ecaresnet26t skresnet18 resnest14d res2net50_26w_4s resnetv2_50 resnetv2_50d_gn gcresnet33ts
        regnetz_b16 dla34 dpn68 hrnet_w18_small ese_vovnet19b_dw cspdarknet53 ghostnet_100 ghostnetv2_100 rexnet_100
        mixnet_s tf_efficientnetv2_b0 mobilenetv4_conv_small mobilenetv4_hybrid_medium lcnet_050 hardcorenas_a
        fbnetc_100 xception41 selecsls42b tresnet_m repvgg_a0 repghostnet_050 mobileone_s0 fastvit_t8 convnextv2_atto
        eca_nfnet_l0 hgnetv2_b0 starnet_s1 inception_next_atto fasternet_t0 mambaout_femto rdnet_tiny repvit_m0_9
        poolformer_s12 pvt_v2_b0 edgenext_xx_small efficientvit_b0 mobilevitv2_050 mobilevit_xxs shvit_s1""",
    S96: "inception_v4 inception_resnet_v2",
    S224: """
        vit_tiny_patch16_224 deit_tiny_distilled_patch16_224 cait_xxs24_224 vit_relpos_small_patch16_224
        eva02_tiny_patch14_224 xcit_nano_12_p16_224 pit_ti_224 levit_128s coat_lite_tiny convit_tiny tnt_s_patch16_224
        twins_pcpvt_small twins_svt_small mvitv2_tiny coatnet_nano_rw_224 efficientformer_l1 efficientformerv2_s0
        efficientvit_m0 swiftformer_xs focalnet_tiny_srf davit_tiny gcvit_xxtiny hiera_tiny_224 nest_tiny volo_d1_224
        visformer_tiny sequencer2d_s tiny_vit_5m_224 caformer_s18 resmlp_12_224 gmlp_s16_224 gmixer_12_224
        mixer_s32_224 swin_tiny_patch4_window7_224 swinv2_cr_tiny_ns_224 iformer_t""",
    (3, 240, 240): "crossvit_tiny_240",
    (3, 256, 256): "maxvit_rmlp_pico_rw_256 swinv2_tiny_window8_256",
}
"""Models of timm by the image they are given."""


def timm_models() -> list[ZooModel]:
    """The zoo's models of timm, one or more of each family."""
    return [ZooModel(f"timm/{name}", shape) for shape, names in TIMM.items() for name in names.split()]


TEXT: dict[str, Any] = {
    "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 160, "vocab_size": 100,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1,
    "sep_token_id": 2, "num_labels": 10,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 160, "image_size": 64,
    "num_labels": 10,
}  # fmt: skip
STAGES: dict[str, Any] = {"hidden_sizes": [16, 32, 48, 64], "num_labels": 10, "image_size": 64}
DISENTANGLED: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
ALIASES: dict[str, Any] = {"d_model": 96, "d_kv": 24, "d_ff": 160, "num_layers": 2, "num_heads": 4}
SOUND: dict[str, Any] = {
    **TEXT, "conv_dim": (32, 32, 32), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3),
    "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 32,
}  # fmt: skip

TRANSFORMERS: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    *((name, (24,), {**TEXT, **more}) for name, more in {
        "BertModel": {},
        "BertForMaskedLM": {},
        "BertForSequenceClassification": {},
        "RobertaForSequenceClassification": {},
        "XLMRobertaForMaskedLM": {},
        "ElectraForSequenceClassification": {"embedding_size": 64},
        "MPNetForMaskedLM": {},
        "DebertaForMaskedLM": DISENTANGLED,
        "DebertaV2ForSequenceClassification": {
            **DISENTANGLED, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True},
        "AlbertForMaskedLM": {"embedding_size": 32},
        "ModernBertForMaskedLM": {"global_attn_every_n_layers": 2, "local_attention": 8},
        "EsmForMaskedLM": {"position_embedding_type": "rotary", "mask_token_id": 3},
        "RoFormerForMaskedLM": {"embedding_size": 96},
        "FNetForMaskedLM": {},
        "SqueezeBertForMaskedLM": {"embedding_size": 96},
        "MobileBertForMaskedLM": {
            "embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32},
        "ConvBertForMaskedLM": {"embedding_size": 96},
        "MegatronBertForMaskedLM": {},
        "DistilBertForMaskedLM": {"dim": 96, "n_layers": 2, "n_heads": 4, "hidden_dim": 160},
        "CLIPTextModelWithProjection": {"projection_dim": 32},
        "SiglipTextModel": {"projection_size": 32},
        "T5EncoderModel": ALIASES,
        "LlamaForCausalLM": {"num_key_value_heads": 2},
        "Qwen2ForCausalLM": {"num_key_value_heads": 2, "tie_word_embeddings": True},
        "GemmaForCausalLM": {"num_key_value_heads": 2, "head_dim": 24},
        "PhiForCausalLM": {},
        "GPT2LMHeadModel": {"n_embd": 96, "n_layer": 2, "n_head": 4},
        "OPTForCausalLM": {"ffn_dim": 160, "word_embed_proj_dim": 96},
        "BloomForCausalLM": {"n_layer": 2, "n_head": 4},
        "GPTNeoXForCausalLM": {},
    }.items()),
    *((name, S64, {**VISION, **more}) for name, more in {
        "ViTForImageClassification": {"patch_size": 16},
        "DeiTForImageClassification": {},
        "BeitForImageClassification": {"use_relative_position_bias": True},
        "Dinov2ForImageClassification": {"patch_size": 16},
        "CLIPVisionModelWithProjection": {"projection_dim": 32},
        "SiglipVisionModel": {},
        "Data2VecVisionForImageClassification": {},
        "ViTMSNForImageClassification": {},
        "DINOv3ViTModel": {},
        "FocalNetForImageClassification": {"embed_dim": 16},
    }.items()),
    *((name, S64, {**STAGES, **more}) for name, more in {
        "ConvNextForImageClassification": {"depths": [1, 1, 2, 1]},
        "ConvNextV2ForImageClassification": {"depths": [1, 1, 2, 1]},
        "SegformerForImageClassification": {"num_attention_heads": [1, 2, 4, 8]},
        "PvtForImageClassification": {"num_attention_heads": [1, 2, 4, 8]},
        "PvtV2ForImageClassification": {"num_attention_heads": [1, 2, 4, 8]},
        "PoolFormerForImageClassification": {},
        "ResNetForImageClassification": {},
        "RegNetForImageClassification": {"groups_width": 16},
        "BitForImageClassification": {"hidden_sizes": [32, 64, 96, 128], "embedding_size": 32, "num_groups": 8},
    }.items()),
    *((name, S64, {"image_size": 64, "num_labels": 10, **more}) for name, more in {
        "SwinForImageClassification": {"embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        "Swinv2ForImageClassification": {"embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        "LevitForImageClassification": {"hidden_sizes": [64, 96, 128], "depths": [1, 1, 1]},
    }.items()),
    ("MobileViTForImageClassification", S64, {"image_size": 64, "num_labels": 10}),
    ("MobileViTV2ForImageClassification", S64, {"image_size": 64, "num_labels": 10}),
    ("MobileNetV2ForImageClassification", S64, {"image_size": 64, "num_labels": 10}),
    ("EfficientNetForImageClassification", S64, {"image_size": 64, "num_labels": 10, "hidden_dim": 1280,
                                                 "width_coefficient": 1.0, "depth_coefficient": 1.0}),
    ("CvtForImageClassification", S64, {"num_labels": 10}),
    ("SwiftFormerForImageClassification", S64, {"num_labels": 10}),
    ("Wav2Vec2ForSequenceClassification", (4000,), SOUND),
    ("HubertForSequenceClassification", (4000,), SOUND),
    ("ASTForAudioClassification", (64, 32), {**VISION, "num_mel_bins": 32, "max_length": 64}),
    ("VideoMAEForVideoClassification", (4, 3, 32, 32), {**VISION, "image_size": 32, "num_frames": 4}),
    ("PerceiverModel", (24, 32), {"d_model": 32, "d_latents": 48, "num_latents": 16, "num_blocks": 1,
                                  "num_self_attends_per_block": 2, "num_self_attention_heads": 4,
                                  "num_cross_attention_heads": 4}),
]  # fmt: skip
"""Models of transformers with the shape of their input and their configuration."""


def transformers_models() -> list[ZooModel]:
    """The zoo's models of transformers: encoders of text, images and sound, and some decoders."""
    return [ZooModel(f"transformers/{name}", shape, {}, config) for name, shape, config in TRANSFORMERS]


def zoo() -> list[ZooModel]:
    """All networks of the zoo."""
    return [*torchvision_models(), *timm_models(), *transformers_models()]


def zoo_model(name: str) -> ZooModel:
    """The network of a name, `timm/levit_128s`."""
    return next(model for model in zoo() if model.name == name)
