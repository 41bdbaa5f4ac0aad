"""Pipelines of diffusers with random weights: the real classes, small enough for a test.

The sizes follow what the classes need: a head of 4 or 8 numbers, a layer or two, a vocabulary of a few words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ("<pad>", "<unk>", "<bos>", "<eos>", "a", "cat", "dog", "red", "blue", "on", "grass")
TEXT = 8  # width of every text encoder


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Splits at spaces, and knows eleven words."""
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", WORDS.index("<bos>")), ("<eos>", WORDS.index("<eos>"))]
    )
    marks = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=16, **marks)


def clip(kind: type) -> Any:
    """A text encoder of CLIP's architecture."""
    return kind(
        transformers.CLIPTextConfig(
            vocab_size=len(WORDS),
            hidden_size=TEXT,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            projection_dim=TEXT,
            bos_token_id=WORDS.index("<bos>"),
            eos_token_id=WORDS.index("<eos>"),
            pad_token_id=WORDS.index("<pad>"),
        )
    )


def t5() -> Any:
    """A text encoder of T5's architecture."""
    return transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=len(WORDS), d_model=4 * TEXT, d_kv=4, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0
        )
    )


def autoencoder(latent_channels: int) -> Any:
    """A VAE that halves nothing: latents have the pictures' resolution."""
    return diffusers.AutoencoderKL(
        sample_size=16,
        block_out_channels=(4,),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.05,
        scaling_factor=1.5,
    )


def sana() -> Any:
    """SANA with its own default scheduler, DPM-Solver++ on flow sigmas with a shift of 3."""
    torch.manual_seed(0)
    text = transformers.Gemma2Config(
        vocab_size=len(WORDS),
        hidden_size=TEXT,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=4,
        attn_implementation="eager",
    )
    return diffusers.SanaPipeline(
        transformer=diffusers.SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            patch_size=1,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=4,
            num_cross_attention_heads=2,
            cross_attention_head_dim=4,
            cross_attention_dim=8,
            caption_channels=TEXT,
            sample_size=32,
        ),
        vae=diffusers.AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock", "ResBlock"),
            decoder_block_types=("ResBlock", "ResBlock"),
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), ()),
            decoder_qkv_multiscales=((), ()),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            scaling_factor=0.4,
        ),
        text_encoder=transformers.Gemma2Model(text),
        tokenizer=tokenizer(),
        scheduler=diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )


def stable_diffusion_3() -> Any:
    """SD3 with its three text encoders and its scheduler, Euler's method with a shift of 3."""
    torch.manual_seed(0)
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=4,
            num_attention_heads=2,
            joint_attention_dim=4 * TEXT,
            caption_projection_dim=8,
            pooled_projection_dim=2 * TEXT,
            pos_embed_max_size=16,
        ),
        vae=autoencoder(4),
        text_encoder=clip(transformers.CLIPTextModelWithProjection),
        text_encoder_2=clip(transformers.CLIPTextModelWithProjection),
        text_encoder_3=t5(),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        tokenizer_3=tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def flux() -> Any:
    """FLUX with its scheduler, Euler's method on a grid that is shifted by the resolution."""
    torch.manual_seed(0)
    return diffusers.FluxPipeline(
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=4 * TEXT,
            pooled_projection_dim=TEXT,
            axes_dims_rope=(2, 2, 4),
            guidance_embeds=True,
        ),
        vae=autoencoder(1),
        text_encoder=clip(transformers.CLIPTextModel),
        text_encoder_2=t5(),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )


def without_dropout(make: Callable[[], Any]) -> Callable[[], Any]:
    """As what is loaded from files is: T5 and the transformers are made with dropout on."""

    def made() -> Any:
        pipe = make()
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval()
        return pipe

    return made


PIPELINES = {
    name: without_dropout(make) for name, make in (("sana", sana), ("sd3", stable_diffusion_3), ("flux", flux))
}
CALLS: dict[str, dict[str, Any]] = {  # what a call needs at this size
    "sana": {"use_resolution_binning": False, "complex_human_instruction": None},
    "sd3": {"max_sequence_length": 16},
    "flux": {"max_sequence_length": 16},
}
