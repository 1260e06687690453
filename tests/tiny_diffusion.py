"""Diffusion pipelines, built tiny with random weights, and what their last step gives."""

import math
import warnings
from dataclasses import dataclass, field
from functools import partial
from inspect import signature

import torch
from optional_packages import import_or_skip

from scene4d.priors.diffusion import load_diffusion
from scene4d.priors.families import Call
from scene4d.priors.prior import NOTHING, Condition
from scene4d.priors.prompts import Prompts, embed

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
    condition: Condition = NOTHING
    strides: tuple = (8, 32)
    """Frames, and pixels along a side, that become one of latents."""
    anchored: bool = False
    """The first frame of latents is given."""
    watched: str = "callback"
    """Where the latents are seen: in the pipeline's callback, or at its scheduler's steps."""


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


def two_steps(made):
    """The latents before the last of two steps, and after it, as priors see them."""
    seen = []

    def look(pipeline, step, time, found):
        seen.append(found["latents"].clone())
        return found

    def watched(*given, **more):
        found = step(*given, **more)
        seen.append(found[0].clone())
        return found

    start = torch.randn(made.latents, generator=torch.Generator().manual_seed(3))
    given = {"latents": start, **made.call}
    if made.packed:
        blocks = torch.nn.functional.pixel_unshuffle(start, 2)
        given["latents"] = blocks.flatten(2).mT
    if made.tokens:
        given["latents"] = start.permute(0, 1, 3, 4, 2).reshape(1, -1, 4)
    if made.frames:
        given.setdefault("num_frames", made.frames)
    if made.shrink:
        side = made.shrink
        given |= {"height": side * made.latents[-2], "width": side * made.latents[-1]}
    scheduler = made.pipeline.scheduler
    if made.watched == "scheduler":
        step, scheduler.step = scheduler.step, watched
    else:
        given["callback_on_step_end"] = look
    made.pipeline.set_progress_bar_config(disable=True)
    given = {name: value for name, value in given.items() if value is not None}
    made.pipeline(num_inference_steps=2, **{"output_type": "latent", **given})
    if made.packed:
        seen = [s.mT.unflatten(2, (4, 4)) for s in seen]
        seen = [torch.nn.functional.pixel_shuffle(s, 2) for s in seen]
    if made.tokens:
        seen = [s.unflatten(1, (2, 8, 8)).permute(0, 1, 4, 2, 3) for s in seen]
    if made.channels_before_frames:
        seen = [s.transpose(1, 2) for s in seen]
    return seen[0], seen[1]


def levels(scheduler):
    """alpha and sigma before the last step."""
    if hasattr(scheduler, "sigmas"):
        sigma = scheduler.sigmas[-2].reshape(1).float()
        if not hasattr(scheduler.config, "invert_sigmas"):  # exploding variance
            return torch.ones(1), sigma
        if scheduler.config.invert_sigmas:
            sigma = 1 - sigma
        return 1 - sigma, sigma
    alpha = scheduler.alphas_cumprod[scheduler.timesteps[-1]].reshape(1)
    return alpha.sqrt(), (1 - alpha).sqrt()


def check_last_step(made, folder):
    """The prior of the folder that the pipeline writes makes the same of the latents before its
    last step, at any scale, and hears the time."""
    made.pipeline.save_pretrained(folder)
    check_texts(made)
    before, after = two_steps(made)
    prior = load_diffusion(folder, prompts=Prompts({"": made.text}), frames=2)
    assert prior.info.num_channels == before.shape[-3]
    first = int(made.anchored)
    alpha, sigma = levels(made.pipeline.scheduler)
    # both in float32, by the same network, whose input is rounded apart: at most 4e-7 was seen
    bound = 1e-6 * max(1.0, float(after.abs().max()))
    for scale in (1.0, 2.0):  # only sigma / alpha counts
        found = prior.denoise(scale * before, scale * alpha, scale * sigma, made.condition)
        far = (found - after)[:, first:].abs().max()
        assert float(far) < bound, float(far)
    assert float((found - before)[:, first:].abs().max()) > 1e-2
    one, other = (asked_at(prior, before, t, made) for t in (200.0, 800.0))
    assert not torch.allclose(one, other, atol=1e-4), "the time says nothing to this network"
    return prior


def check_texts(made):
    """What the pipeline's encoder returns is kept by the names that the family reads."""
    encode = getattr(made.pipeline, "encode_prompt", None)
    if encode is None or "prompt_embeds" not in made.call:
        return
    # given its own answers, it returns them as they are
    known = signature(encode).parameters
    given = {name: value for name, value in made.call.items() if name in known}
    given |= {"dtype": torch.float32} if "dtype" in known else {}
    given.pop("prompt", None)
    made.pipeline.encode_prompt = partial(encode, **given)
    found = embed(made.pipeline, [""]).of("")
    made.pipeline.encode_prompt = encode
    assert set(found) == set(made.text)
    for name, value in made.text.items():
        torch.testing.assert_close(found[name], value, check_dtype=False)


def asked_at(prior, x, time, made):
    """The network's own answer at a time of its clock."""
    time = 0.25 * math.log(time / 100) if prior.family.clock == "log" else time
    seen = prior._seen(made.condition, None, x)
    return prior.family.ask(Call(network=prior.network, x=x, time=torch.full((1,), time),
                                 text=made.text, seen=seen, camera=made.condition.camera,
                                 shrink=made.strides))  # fmt: skip
