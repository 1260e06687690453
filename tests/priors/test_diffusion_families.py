"""Diffusion models of videos, and those that are given a picture or cameras, against the last step
of diffusers' own pipelines; see tiny_diffusion."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from optional_packages import import_or_skip
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

from scene4d.cameras.camera import Camera
from scene4d.cameras.conventions import flip_yz
from scene4d.errors import DataError, UsageError
from scene4d.priors.diffusion import load_diffusion
from scene4d.priors.prior import Condition
from scene4d.priors.prompts import Prompts, embed_pictures

pytestmark = pytest.mark.unchecked_shapes
transformers = import_or_skip("transformers")

PICTURE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(4))
"""Colours, 0..1."""
SEEN = Condition(picture=2 * PICTURE - 1)
TOLD = {"prompt_embeds": TEXT, "guidance_scale": 1.0}
MASKED = {**TOLD, "prompt_attention_mask": MASK}
NONE = {"tokenizer": None, "text_encoder": None}
VIDEO = {"latents": (1, 4, 2, 8, 8), "channels_before_frames": True}


def svd():
    # 64: its norms are of 32 groups, and of one channel each would not hear the time
    net = diffusers.UNetSpatioTemporalConditionModel(
        sample_size=8, in_channels=8, out_channels=4, block_out_channels=(64, 64),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        addition_time_embed_dim=4, projection_class_embeddings_input_dim=12, layers_per_block=1,
        cross_attention_dim=WIDE, num_attention_heads=2, num_frames=2,
    )  # fmt: skip
    own = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
        layers_per_block=1,
    )  # fmt: skip
    look = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, projection_dim=WIDE, num_hidden_layers=1,
        num_attention_heads=2, image_size=64, patch_size=16,
    )).eval()  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction", use_karras_sigmas=True, timestep_type="continuous",
        sigma_min=1.0, sigma_max=700.0, timestep_spacing="leading", steps_offset=1,
        interpolation_type="linear", **{k: v for k, v in BETAS.items() if k.startswith("beta")},
    )  # fmt: skip
    pipeline = diffusers.StableVideoDiffusionPipeline(
        vae=own.eval(), image_encoder=look, unet=net, scheduler=scheduler,
        feature_extractor=transformers.CLIPImageProcessor(crop_size=64, size=64),
    )  # fmt: skip
    with torch.no_grad():
        told = embed_pictures(pipeline, {"it": PICTURE}).of("it")
    given = {"image": PICTURE, "noise_aug_strength": 0.0, "max_guidance_scale": 1.0}
    return Made(pipeline, dict(told), given, (1, 2, 4, 8, 8), frames=2, condition=SEEN)


def animate():
    net = diffusers.UNetMotionModel(
        sample_size=8, block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"), cross_attention_dim=WIDE,
        num_attention_heads=2, motion_num_attention_heads=2,
    )  # fmt: skip
    pipeline = diffusers.AnimateDiffPipeline(
        vae=vae(), unet=net, motion_adapter=None, **NONE,
        scheduler=diffusers.DDIMScheduler(**{**BETAS, "beta_schedule": "linear"}),
    )  # fmt: skip
    return Made(pipeline, {"embeds": TEXT}, TOLD, frames=2, **VIDEO)


def cogvideox(**changes):
    net = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4,
        text_embed_dim=WIDE, num_layers=1, sample_width=12, sample_height=8, sample_frames=5,
        patch_size=2, temporal_compression_ratio=4, max_text_seq_length=5, time_embed_dim=16,
        use_rotary_positional_embeddings=True, **changes,
    )  # fmt: skip
    scheduler = diffusers.CogVideoXDDIMScheduler(
        prediction_type="v_prediction", snr_shift_scale=3.0, rescale_betas_zero_snr=True, **BETAS
    )
    pipeline = diffusers.CogVideoXPipeline(vae=None, transformer=net, scheduler=scheduler, **NONE)
    return Made(pipeline, {"embeds": TEXT}, TOLD, (1, 2, 4, 8, 8), frames=5)


def wan_net(layers=1):
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4,
        out_channels=4, text_dim=WIDE, freq_dim=16, ffn_dim=16, num_layers=layers,
        rope_max_seq_len=32,
    )  # fmt: skip


def wan_vae():
    return diffusers.AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True], latents_mean=[0.1, 0.2, -0.1, 0.0],
        latents_std=[1.0, 2.0, 0.5, 1.5],
    )  # fmt: skip


def wan(**settings):
    """The last of two steps is at the time 750."""
    pair = {} if "boundary_ratio" not in settings else {"transformer_2": wan_net(2)}
    pipeline = diffusers.WanPipeline(
        vae=None, scheduler=flow(shift=3.0), transformer=wan_net(), **NONE, **pair, **settings
    )
    return Made(pipeline, {"embeds": TEXT}, TOLD, frames=5, **VIDEO)


def wan_first():
    pipeline = diffusers.WanImageToVideoPipeline(
        vae=wan_vae(), scheduler=flow(shift=3.0), transformer=wan_net(), expand_timesteps=True,
        **NONE,
    )  # fmt: skip
    return Made(pipeline, {"embeds": TEXT}, {**TOLD, "image": PICTURE}, frames=5, condition=SEEN,
                anchored=True, **VIDEO)  # fmt: skip


def sana_net(**changes):
    return diffusers.SanaVideoTransformer3DModel(
        in_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=1,
        num_cross_attention_heads=2, cross_attention_head_dim=12, cross_attention_dim=24,
        caption_channels=WIDE, sample_size=8, rope_max_seq_len=32, **{"out_channels": 4, **changes},
    )  # fmt: skip


def sana(**changes):
    pipeline = diffusers.SanaVideoPipeline(
        vae=wan_vae(), transformer=sana_net(**changes), scheduler=flow(shift=3.0), **NONE
    )
    given = {**MASKED, "use_resolution_binning": False, "frames": 5}
    return Made(pipeline, {"embeds": TEXT, "mask": MASK}, given, **VIDEO)


def sana_first():
    pipeline = diffusers.SanaImageToVideoPipeline(
        vae=wan_vae(), transformer=sana_net(), scheduler=flow(shift=3.0), **NONE
    )
    given = {**MASKED, "use_resolution_binning": False, "frames": 5, "image": PICTURE}
    return Made(pipeline, {"embeds": TEXT, "mask": MASK}, given, condition=SEEN, anchored=True,
                **VIDEO)  # fmt: skip


def hunyuan():
    net = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, text_embed_dim=WIDE, pooled_projection_dim=16,
        rope_axes_dim=(4, 4, 8),
    )  # fmt: skip
    pipeline = diffusers.HunyuanVideoPipeline(
        vae=None, transformer=net, scheduler=flow(shift=7.0), text_encoder_2=None,
        tokenizer_2=None, **NONE,
    )  # fmt: skip
    given = {**MASKED, "pooled_prompt_embeds": POOLED, "guidance_scale": 6.0}
    return Made(pipeline, {"embeds": TEXT, "mask": MASK, "pooled": POOLED}, given, frames=5,
                **VIDEO)  # fmt: skip


def hunyuan15():
    net = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1,
        num_refiner_layers=1, text_embed_dim=WIDE, text_embed_2_dim=WIDE, image_embed_dim=8,
        rope_axes_dim=(4, 4, 8), target_size=64, task_type="t2v",
    )  # fmt: skip
    own = diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(8, 8), layers_per_block=1,
        spatial_compression_ratio=2, temporal_compression_ratio=2,
    )  # fmt: skip
    pipeline = diffusers.HunyuanVideo15Pipeline(
        vae=own, transformer=net, scheduler=flow(shift=5.0), text_encoder_2=None, tokenizer_2=None,
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=1.0), **NONE,
    )  # fmt: skip
    half = torch.tensor([[1, 1, 1, 0, 0]])
    given = {"prompt_embeds": TEXT, "prompt_embeds_mask": half, "prompt_embeds_2": TEXT.flip(1),
             "prompt_embeds_mask_2": MASK}  # fmt: skip
    text = {"embeds": TEXT, "mask": half, "embeds_2": TEXT.flip(1), "mask_2": MASK}
    return Made(pipeline, text, given, frames=3, shrink=2, watched="scheduler", **VIDEO)


def sana_wm():
    if not hasattr(diffusers, "SanaWMPipeline"):
        pytest.skip("this version of diffusers has no SanaWM (0.42 has)")
    net = diffusers.SanaWMTransformer3DModel(
        in_channels=4, num_layers=2, hidden_size=48, num_attention_heads=2, softmax_every_n=2,
        linear_head_dim=24, caption_channels=WIDE, chunk_plucker_post_attn_blocks=2,
        chunk_plucker_channels=24,
    )  # fmt: skip
    for part in net.parameters():  # it starts with layers of zeros, which would not hear cameras
        torch.nn.init.normal_(part, std=0.1)
    own = diffusers.AutoencoderKLLTX2Video(
        latent_channels=4, block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1), patch_size=8,
        down_block_types=("LTX2VideoDownBlock3D",) * 2, downsample_type=("spatiotemporal",) * 2,
        spatio_temporal_scaling=(True, True), decoder_spatio_temporal_scaling=(True, True),
        decoder_inject_noise=(False,) * 3, upsample_residual=(True,) * 2,
        upsample_type=("spatiotemporal",) * 2, upsample_factor=(2, 2),
        spatial_compression_ratio=32, temporal_compression_ratio=4,
    )  # fmt: skip
    own.latents_mean.copy_(torch.tensor([0.1, -0.1, 0.2, 0.0]))
    own.latents_std.copy_(torch.tensor([1.0, 2.0, 0.5, 1.5]))
    pipeline = diffusers.SanaWMPipeline(vae=own, transformer=net, scheduler=flow(shift=3.0), **NONE)
    camera = path(5)
    text = TEXT[:, None]
    lens = camera.K[:, (0, 1, 0, 1), (0, 1, 2, 2)].numpy()
    picture = (PICTURE[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    import PIL.Image

    given = {"latents": None, "prompt": "", "prompt_embeds": text, "prompt_attention_mask": MASK,
             "negative_prompt_embeds": text, "negative_prompt_attention_mask": MASK,
             "guidance_scale": 1.0, "c2w": flip_yz(camera.c2w).numpy(), "intrinsics": lens,
             "image": PIL.Image.fromarray(picture)}  # fmt: skip
    seen = torch.from_numpy(picture / 127.5 - 1).float().permute(2, 0, 1)[None]
    return Made(pipeline, {"embeds": text, "mask": MASK}, given, (1, 4, 2, 2, 2), shrink=32,
                frames=5, channels_before_frames=True, anchored=True, strides=(4, 32),
                condition=Condition(picture=seen, camera=camera))  # fmt: skip


def path(count):
    """Cameras that step aside and turn."""
    turn = 0.1 * torch.arange(count)
    c2w = torch.eye(4).repeat(count, 1, 1)
    c2w[:, 0, 0] = c2w[:, 2, 2] = turn.cos()
    c2w[:, 0, 2], c2w[:, 2, 0] = turn.sin(), -turn.sin()
    c2w[:, 0, 3] = 0.2 * torch.arange(count) + 1
    K = torch.tensor([[50.0, 0, 30], [0, 52, 33], [0, 0, 1]]).repeat(count, 1, 1)
    return Camera(c2w=c2w, K=K, width=64, height=64)


def marigold(kind):
    pipeline = getattr(diffusers, f"Marigold{kind}Pipeline")(
        unet=unet(in_channels=8), vae=vae(scaling_factor=0.5), **NONE,
        scheduler=diffusers.DDIMScheduler(prediction_type="v_prediction", **BETAS),
        default_denoising_steps=2, default_processing_resolution=0,
    )  # fmt: skip
    pipeline.empty_text_embedding = TEXT
    return Made(pipeline, {"embeds": TEXT}, {"image": PICTURE, "output_type": "pt"},
                condition=SEEN, shrink=0, watched="scheduler")  # fmt: skip


FAMILIES = {
    "svd": svd, "animate": animate, "cogvideox-1.0": cogvideox,
    "cogvideox-1.5": lambda: cogvideox(patch_size_t=2, patch_bias=False),
    "wan-2.2-much-noise": lambda: wan(boundary_ratio=0.7),
    "wan-2.2-little-noise": lambda: wan(boundary_ratio=0.9),
    "wan-5b": lambda: wan(expand_timesteps=True), "wan-5b-first": wan_first,
    "sana-video": sana, "sana-video-variance": lambda: sana(out_channels=8),
    "sana-video-first": sana_first, "sana-wm": sana_wm, "hunyuan": hunyuan,
    "hunyuan-1.5": hunyuan15, "marigold-depth": lambda: marigold("Depth"),
    "marigold-normals": lambda: marigold("Normals"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_the_clean_video_is_that_of_the_pipelines_last_step(name, tmp_path):
    torch.manual_seed(0)
    check_last_step(FAMILIES[name](), tmp_path)


def test_sana_wm_hears_where_cameras_stand(tmp_path):
    torch.manual_seed(0)
    made = sana_wm()
    made.pipeline.save_pretrained(tmp_path)
    prior = load_diffusion(tmp_path, prompts=Prompts({"": made.text}), frames=2)
    x, level = torch.randn(1, 2, 4, 2, 2), torch.full((1,), 0.5)
    camera = made.condition.camera
    answers = {}
    for name, c2w in {
        "there": camera.c2w,
        "all moved together": rolled(camera.c2w),
        "elsewhere": camera.c2w.flip(0),
    }.items():
        known = replace(made.condition, camera=replace(camera, c2w=c2w))
        answers[name] = prior.denoise(x, level, level, known)
    # relative to the first camera: the same but for rounding
    torch.testing.assert_close(answers["all moved together"], answers["there"], rtol=0, atol=1e-4)
    assert float((answers["elsewhere"] - answers["there"]).abs().max()) > 1e-2
    with pytest.raises(UsageError, match="where cameras stand"):
        prior.denoise(x, level, level, Condition(picture=made.condition.picture))
    with pytest.raises(UsageError, match="4 cameras were given to 1 videos of 5 frames"):
        prior.denoise(x, level, level, Condition(camera=camera.chosen(slice(4))))
    # without a picture no frame is given
    free = prior.denoise(x, level, level, Condition(camera=camera))
    assert not torch.allclose(free[:, 0], answers["there"][:, 0])


def rolled(c2w):
    """The cameras after one rigid motion of the world."""
    motion = torch.eye(4)
    motion[:3, :3] = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    motion[:3, 3] = torch.tensor([1.0, -2.0, 0.5])
    return motion @ c2w


def test_a_pair_of_networks_answers_each_video_by_its_noise(tmp_path):
    torch.manual_seed(0)
    made = wan(boundary_ratio=0.7)
    made.pipeline.save_pretrained(tmp_path)
    prior = load_diffusion(tmp_path, prompts=Prompts({"": made.text}), frames=2)
    x, sigma = torch.randn(3, 2, 4, 8, 8), torch.tensor([0.3, 0.8, 0.7])
    together = prior.denoise(x, 1 - sigma, sigma)
    for row, name in enumerate(("transformer_2", "transformer", "transformer")):
        network = getattr(made.pipeline, name)
        with torch.no_grad():
            velocity = network(x[row : row + 1].transpose(1, 2), 1000 * sigma[row : row + 1], TEXT)
        wanted = x[row] - sigma[row] * velocity.sample[0].transpose(0, 1)
        torch.testing.assert_close(together[row], wanted, rtol=0, atol=1e-5)  # float32
    made.pipeline.register_modules(transformer_2=None)
    made.pipeline.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="one network of two"):
        load_diffusion(tmp_path)


def test_the_picture_of_no_name_is_not_seen(tmp_path):
    torch.manual_seed(0)
    made = svd()
    made.pipeline.save_pretrained(tmp_path)
    prompts = embed_pictures(made.pipeline, {"it": PICTURE})
    prior = load_diffusion(tmp_path, prompts=prompts, frames=2)
    x, half = torch.randn(1, 2, 4, 8, 8), torch.full((1,), 0.5**0.5)
    nothing = prior.denoise(x, half, half, SEEN)
    other = prior.denoise(x, half, half, Condition(picture=-SEEN.picture))
    assert torch.equal(nothing, other)
    it = prior.denoise(x, half, half, replace(SEEN, text="it"))
    assert float((it - nothing).abs().max()) > 1e-3
    with pytest.raises(UsageError, match="about a picture"):
        prior.denoise(x, half, half, Condition(text="it"))


def test_latents_of_videos_and_of_depth_are_those_of_the_pipelines(tmp_path):
    torch.manual_seed(0)
    made = marigold("Depth")
    made.pipeline.save_pretrained(tmp_path / "depth")
    prior = load_diffusion(tmp_path / "depth", prompts=Prompts({"": made.text}))
    depth = torch.rand(1, 1, 64, 64) * 2 - 1
    latents = prior.encode(depth)
    with torch.no_grad():
        wanted = 0.5 * made.pipeline.vae.encode(depth.expand(-1, 3, -1, -1)).latent_dist.mode()
        assert torch.allclose(latents, wanted, atol=1e-6)
        shown = made.pipeline.decode_prediction(latents)  # 0..1, cut off
    back = prior.decode(latents)
    assert back.shape == depth.shape and prior.info.channels == ("depth",)
    assert torch.allclose(0.5 * back.clamp(-1, 1) + 0.5, shown, atol=1e-6)
    made = svd()
    made.pipeline.save_pretrained(tmp_path / "svd")
    prior = load_diffusion(tmp_path / "svd", frames=2)
    video = torch.rand(1, 2, 3, 64, 64) * 2 - 1
    latents = prior.encode(video)
    with torch.no_grad():
        wanted = made.pipeline.vae.encode(video[0]).latent_dist.mode()
        wanted = wanted * made.pipeline.vae.config.scaling_factor
        assert torch.allclose(latents[0], wanted, atol=1e-5)
        shown = made.pipeline.decode_latents(latents, 2)
    assert torch.allclose(prior.decode(latents), shown.transpose(1, 2), atol=1e-5)


def test_networks_that_want_what_is_not_told_are_refused(tmp_path):
    torch.manual_seed(0)
    made = wan()
    made.pipeline.register_modules(transformer=diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=12,
        out_channels=4, text_dim=WIDE, freq_dim=16, ffn_dim=16, num_layers=1,
    ))  # fmt: skip
    made.pipeline.save_pretrained(tmp_path / "wan")
    with pytest.raises(DataError, match="12 channels in place of 4"):
        load_diffusion(tmp_path / "wan")
    made = marigold("Depth")
    made.pipeline.save_pretrained(tmp_path / "unet")
    index = tmp_path / "unet" / "model_index.json"
    index.write_text(index.read_text().replace("MarigoldDepth", "StableDiffusionInpaint"))
    with pytest.raises(DataError, match="8 channels in place of 4"):
        load_diffusion(tmp_path / "unet")


def test_half_precision_that_overflows_is_told_of_videos(tmp_path):
    torch.manual_seed(0)
    made = wan()
    with torch.no_grad():
        made.pipeline.transformer.proj_out.weight.mul_(1e6)
    made.pipeline.save_pretrained(tmp_path)
    prior = load_diffusion(
        tmp_path, prompts=Prompts({"": made.text}), dtype=torch.float16, frames=2
    )
    half = torch.full((1,), 0.5)
    with pytest.raises(UsageError, match="float16 is not finite"):
        prior.denoise(torch.randn(1, 2, 4, 8, 8), half, half)
