"""Diffusion models: each family against the last step, to sigma 0, of diffusers' own pipeline.

Built tiny from configurations with random weights; text encoders are left out.
"""

import json
import warnings
from dataclasses import dataclass, field

import pytest
import torch
from optional_packages import import_or_skip

from scene4d.errors import DataError, UsageError
from scene4d.priors.diffusion import load_diffusion
from scene4d.priors.families import Call
from scene4d.priors.prior import Condition
from scene4d.priors.prompts import Prompts, load_prompts

pytestmark = pytest.mark.unchecked_shapes
diffusers = import_or_skip("diffusers")
import_or_skip("transformers")
warnings.filterwarnings("ignore", module="diffusers")

WIDE = 32
TEXT = torch.randn(1, 5, WIDE, generator=torch.Generator().manual_seed(1))
POOLED = torch.randn(1, 16, generator=torch.Generator().manual_seed(2))
MASK = torch.ones(1, 5, dtype=torch.int64)
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
         "clip_sample": False, "timestep_spacing": "trailing"}  # fmt: skip


@dataclass
class Made:
    """A pipeline, what it is called with, and how its latents lie."""

    pipeline: object
    text: dict = field(default_factory=dict)
    call: dict = field(default_factory=dict)
    latents: tuple = (1, 4, 8, 8)
    packed: bool = False
    channels_before_frames: bool = False
    tokens: bool = False
    """Every latent is one."""
    shrink: int = 8
    """Pixels along a latent."""
    frames: int = 0
    """Of pixels."""


def unet(**changes):
    settings = {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (16, 16),
        "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": WIDE,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": 8,
    }  # fmt: skip
    return diffusers.UNet2DConditionModel(**{**settings, **changes})


def vae(channels=4, **changes):
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        **changes,
    )  # fmt: skip


def flow(**changes):
    return diffusers.FlowMatchEulerDiscreteScheduler(**changes)


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
    return Made(pipeline, {"embeds": TEXT, "mask": MASK}, given)


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


def two_steps(made):
    """The latents before the last of two steps, and after it."""
    seen = []

    def look(pipeline, step, time, found):
        seen.append(found["latents"].clone())
        return found

    start = torch.randn(made.latents, generator=torch.Generator().manual_seed(3))
    given = {**made.call, "latents": start}
    if made.packed:
        blocks = torch.nn.functional.pixel_unshuffle(start, 2)
        given["latents"] = blocks.flatten(2).mT
    if made.tokens:
        given["latents"] = start.permute(0, 1, 3, 4, 2).reshape(1, -1, 4)
    if made.frames:
        given["num_frames"] = made.frames
    size = {"height": made.shrink * made.latents[-2], "width": made.shrink * made.latents[-1]}
    end = {"callback_on_step_end": look}
    if "PixArt" in type(made.pipeline).__name__:
        end = {"callback": lambda step, time, latents: seen.append(latents.clone())}
    made.pipeline.set_progress_bar_config(disable=True)
    made.pipeline(num_inference_steps=2, output_type="latent", **size, **end, **given)
    if made.packed:
        seen = [s.mT.unflatten(2, (4, 4)) for s in seen]
        seen = [torch.nn.functional.pixel_shuffle(s, 2) for s in seen]
    if made.tokens:
        seen = [s.unflatten(1, (2, 8, 8)).permute(0, 1, 4, 2, 3) for s in seen]
    return seen[0], seen[1]


def levels(scheduler):
    """alpha and sigma before the last step."""
    if hasattr(scheduler, "sigmas"):
        sigma = scheduler.sigmas[-2].reshape(1).float()
        if scheduler.config.invert_sigmas:
            sigma = 1 - sigma
        return 1 - sigma, sigma
    alpha = scheduler.alphas_cumprod[scheduler.timesteps[-1]].reshape(1)
    return alpha.sqrt(), (1 - alpha).sqrt()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_clean_picture_is_that_of_the_pipelines_last_step(name, tmp_path):
    torch.manual_seed(0)
    made = FAMILIES[name]()
    made.pipeline.save_pretrained(tmp_path)
    before, after = two_steps(made)
    prior = load_diffusion(tmp_path, prompts=Prompts({"": made.text}), frames=2)
    if made.channels_before_frames:
        before, after = before.transpose(1, 2), after.transpose(1, 2)
    assert prior.info.num_channels == before.shape[-3]
    alpha, sigma = levels(made.pipeline.scheduler)
    found = prior.denoise(before, alpha, sigma)
    assert torch.allclose(found, after, atol=1e-5), float((found - after).abs().max())
    assert float((found - before).abs().max()) > 1e-2
    noised = before.to(torch.float32)
    answers = [prior.family.ask(Call(network=prior.network, x=noised, time=torch.full((1,), t),
                                     text=made.text)) for t in (200.0, 800.0)]  # fmt: skip
    assert not torch.allclose(*answers, atol=1e-4), "the time says nothing to this network"
    # the same pictures with exploding variance: only sigma / alpha counts
    again = prior.denoise(2 * before, 2 * alpha, 2 * sigma)
    assert torch.allclose(again, after, atol=1e-5)


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
