"""Diffusion models: each family against the last step, to sigma 0, of diffusers' own pipeline.

Built tiny from configurations with random weights; text encoders are left out.
"""

import json

import pytest
import torch
from tiny_diffusion import (
    BETAS,
    MASK,
    POOLED,
    TEXT,
    WIDE,
    Made,
    check_last_step,
    diffusers,
    flow,
    unet,
    vae,
)

from scene4d.errors import DataError, UsageError
from scene4d.priors.diffusion import load_diffusion
from scene4d.priors.prior import Condition
from scene4d.priors.prompts import Prompts, load_prompts

pytestmark = pytest.mark.unchecked_shapes


def sd(prediction="epsilon"):
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae(), text_encoder=None, tokenizer=None, unet=unet(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
        scheduler=diffusers.DDIMScheduler(prediction_type=prediction, **BETAS),
    )  # fmt: skip
    return Made(pipeline, {"embeds": TEXT}, {"prompt_embeds": TEXT, "guidance_scale": 1.0})


def sdxl():
    net = unet(addition_embed_type="text_time", addition_time_embed_dim=4,
               projection_class_embeddings_input_dim=16 + 6 * 4)  # fmt: skip
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=vae(), text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None,
        unet=net, scheduler=diffusers.DDIMScheduler(**BETAS), add_watermarker=False,
    )  # fmt: skip
    given = {"prompt_embeds": TEXT, "pooled_prompt_embeds": POOLED, "guidance_scale": 1.0}
    return Made(pipeline, {"embeds": TEXT, "pooled": POOLED}, given)


def sd3():
    net = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=WIDE, caption_projection_dim=16,
        pooled_projection_dim=16, out_channels=4, pos_embed_max_size=8,
    )  # fmt: skip
    pipeline = diffusers.StableDiffusion3Pipeline(
        transformer=net, scheduler=flow(shift=3.0), vae=vae(), text_encoder=None,
        tokenizer=None, text_encoder_2=None, tokenizer_2=None, text_encoder_3=None,
        tokenizer_3=None,
    )  # fmt: skip
    given = {"prompt_embeds": TEXT, "pooled_prompt_embeds": POOLED, "guidance_scale": 1.0}
    return Made(pipeline, {"embeds": TEXT, "pooled": POOLED}, given)


def flux():
    net = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=WIDE, pooled_projection_dim=16,
        guidance_embeds=True, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    pipeline = diffusers.FluxPipeline(
        scheduler=flow(), vae=vae(), text_encoder=None, tokenizer=None, text_encoder_2=None,
        tokenizer_2=None, transformer=net,
    )  # fmt: skip
    given = {"prompt_embeds": TEXT, "pooled_prompt_embeds": POOLED, "guidance_scale": 3.5}
    return Made(pipeline, {"embeds": TEXT, "pooled": POOLED}, given, packed=True)


def pixart():
    net = diffusers.PixArtTransformer2DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=2,
        in_channels=4, out_channels=8, cross_attention_dim=16, caption_channels=WIDE,
        use_additional_conditions=False,
    )  # fmt: skip
    pipeline = diffusers.PixArtSigmaPipeline(
        tokenizer=None, text_encoder=None, vae=vae(), transformer=net,
        scheduler=diffusers.DDIMScheduler(**BETAS),
    )  # fmt: skip
    given = {"prompt_embeds": TEXT, "prompt_attention_mask": MASK, "negative_prompt": None,
             "guidance_scale": 1.0, "use_resolution_binning": False}  # fmt: skip
    return Made(pipeline, {"embeds": TEXT, "mask": MASK}, given, watched="scheduler")


def wan():
    net = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4,
        out_channels=4, text_dim=WIDE, freq_dim=16, ffn_dim=16, num_layers=1, rope_max_seq_len=32,
    )  # fmt: skip
    pipeline = diffusers.WanPipeline(
        tokenizer=None, text_encoder=None, vae=None, scheduler=flow(shift=3.0), transformer=net
    )
    return Made(pipeline, {"embeds": TEXT}, {"prompt_embeds": TEXT, "guidance_scale": 1.0},
                (1, 4, 2, 8, 8), channels_before_frames=True, frames=5)  # fmt: skip


def sana():
    net = diffusers.SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16,
        caption_channels=WIDE, sample_size=8, patch_size=1, timestep_scale=0.5,
    )  # fmt: skip
    pipeline = diffusers.SanaPipeline(
        tokenizer=None, text_encoder=None, vae=None, transformer=net, scheduler=flow(shift=3.0)
    )
    given = {"prompt_embeds": TEXT, "prompt_attention_mask": MASK, "guidance_scale": 1.0,
             "use_resolution_binning": False}  # fmt: skip
    return Made(pipeline, {"embeds": TEXT, "mask": MASK}, given, shrink=32)


def ltx():
    net = diffusers.LTXVideoTransformer3DModel(
        in_channels=4, out_channels=4, patch_size=1, patch_size_t=1, num_attention_heads=2,
        attention_head_dim=8, cross_attention_dim=16, num_layers=1, caption_channels=WIDE,
    )  # fmt: skip
    pipeline = diffusers.LTXPipeline(
        scheduler=flow(), vae=None, text_encoder=None, tokenizer=None, transformer=net
    )
    given = {"prompt_embeds": TEXT, "prompt_attention_mask": MASK, "guidance_scale": 1.0}
    return Made(pipeline, {"embeds": TEXT, "mask": MASK}, given, (1, 2, 4, 8, 8), tokens=True,
                shrink=32, frames=9)  # fmt: skip


def cogvideox():
    net = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4,
        text_embed_dim=WIDE, num_layers=1, sample_width=8, sample_height=8, sample_frames=5,
        patch_size=2, temporal_compression_ratio=4, max_text_seq_length=5, time_embed_dim=16,
    )  # fmt: skip
    scheduler = diffusers.CogVideoXDDIMScheduler(
        prediction_type="v_prediction", snr_shift_scale=3.0, rescale_betas_zero_snr=True, **BETAS
    )
    pipeline = diffusers.CogVideoXPipeline(
        tokenizer=None, text_encoder=None, vae=None, transformer=net, scheduler=scheduler
    )
    return Made(pipeline, {"embeds": TEXT}, {"prompt_embeds": TEXT, "guidance_scale": 1.0},
                (1, 2, 4, 8, 8), frames=5)  # fmt: skip


def mochi():
    net = diffusers.MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=2, in_channels=4,
        pooled_projection_dim=16, text_embed_dim=WIDE, time_embed_dim=4, max_sequence_length=5,
    )  # fmt: skip
    pipeline = diffusers.MochiPipeline(
        scheduler=flow(invert_sigmas=True), vae=None, text_encoder=None, tokenizer=None,
        transformer=net,
    )  # fmt: skip
    given = {"prompt_embeds": TEXT, "prompt_attention_mask": MASK.bool(), "guidance_scale": 1.0}
    return Made(pipeline, {"embeds": TEXT, "mask": MASK.bool()}, given, (1, 4, 2, 8, 8),
                channels_before_frames=True, frames=7)  # fmt: skip


def pixels():
    net = diffusers.UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 8), down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(**{**BETAS, "beta_schedule": "linear"})
    return diffusers.DDIMPipeline(unet=net, scheduler=scheduler)


FAMILIES = {
    "sd": sd, "sd-v": lambda: sd("v_prediction"), "sdxl": sdxl, "sd3": sd3, "flux": flux,
    "pixart": pixart, "sana": sana, "wan": wan, "ltx": ltx, "cogvideox": cogvideox,
    "mochi": mochi,
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_the_clean_picture_is_that_of_the_pipelines_last_step(name, tmp_path):
    torch.manual_seed(0)
    check_last_step(FAMILIES[name](), tmp_path)


def test_pictures_without_text_or_latents(tmp_path):
    torch.manual_seed(0)
    pipeline = pixels()
    pipeline.save_pretrained(tmp_path)
    prior = load_diffusion(tmp_path)
    assert prior.info.space == "pixels" and not prior.info.conditions
    x = torch.randn(2, 3, 16, 16)
    pipeline.scheduler.set_timesteps(1000)
    alpha = pipeline.scheduler.alphas_cumprod[300]
    with torch.no_grad():
        noise = pipeline.unet(x, 300).sample
    wanted = pipeline.scheduler.step(noise, 300, x).pred_original_sample
    levels = (alpha.sqrt().expand(2), (1 - alpha).sqrt().expand(2))
    assert torch.allclose(prior.denoise(x, *levels), wanted, atol=1e-6)
    with pytest.raises(UsageError, match="no VAE"):
        prior.encode(x)


def test_latents_are_scaled_as_the_vae_tells(tmp_path):
    torch.manual_seed(0)
    made = sd()
    made.pipeline.vae = vae(shift_factor=0.1, scaling_factor=0.5)
    made.pipeline.save_pretrained(tmp_path)
    prior = load_diffusion(tmp_path)
    pictures = torch.rand(1, 3, 64, 64) * 2 - 1
    own = made.pipeline.vae
    with torch.no_grad():
        latents = (own.encode(pictures).latent_dist.mode() - 0.1) * 0.5
        back = own.decode(latents / 0.5 + 0.1).sample
        assert torch.allclose(prior.encode(pictures), latents, atol=1e-6)
        assert torch.allclose(prior.decode(latents), back, atol=1e-5)


def test_embeddings_of_texts_are_kept_as_safetensors_and_asked_by_their_text(tmp_path):
    torch.manual_seed(0)
    sd().pipeline.save_pretrained(tmp_path)
    other = torch.randn(1, 5, WIDE)
    Prompts({"": {"embeds": TEXT}, "a pig": {"embeds": other}}).save(tmp_path / "texts.safetensors")
    prior = load_diffusion(tmp_path, prompts=load_prompts(tmp_path / "texts.safetensors"))
    x, half = torch.randn(2, 4, 8, 8), torch.full((2,), 0.5**0.5)
    nothing = prior.denoise(x, half, half)
    pig = prior.denoise(x, half, half, Condition(text="a pig"))
    assert float((nothing - pig).abs().max()) > 1e-4
    with pytest.raises(UsageError, match="no embedding of the text 'a cow'"):
        prior.denoise(x, half, half, Condition(text="a cow"))
    with pytest.raises(DataError, match="damaged"):
        load_prompts(tmp_path / "model_index.json")


def test_what_is_no_model_is_told(tmp_path):
    with pytest.raises(DataError, match="is no diffusion model"):
        load_diffusion(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "WordsPipeline"}))
    with pytest.raises(DataError, match="WordsPipeline, which is of no known family"):
        load_diffusion(tmp_path)
    torch.manual_seed(0)
    made = sd()
    made.pipeline.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(DataError, match="pickles are not read"):
        load_diffusion(tmp_path)


def test_half_precision_that_overflows_is_told(tmp_path):
    torch.manual_seed(0)
    made = sd()
    with torch.no_grad():
        made.pipeline.unet.conv_out.weight.mul_(1e6)
    made.pipeline.save_pretrained(tmp_path)
    prior = load_diffusion(tmp_path, prompts=Prompts({"": made.text}), dtype=torch.float16)
    half = torch.full((1,), 0.5**0.5)
    with pytest.raises(UsageError, match="float16 is not finite"):
        prior.denoise(torch.randn(1, 4, 8, 8), half, half)
