"""Families of diffusion networks: what each is given, and what it answers. A line for each.

Layouts: pictures are [batch, channels, height, width], videos [batch, frames, channels, height,
width]. ``time`` is that of the family's own table of steps, 0..1000.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.priors.predictions import Prediction


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """What a network is asked."""

    network: nn.Module
    x: Tensor
    time: Float[Tensor, " batch"]
    text: Mapping[str, Tensor] = field(default_factory=dict)
    """Empty for families that read none."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """How networks of one class are asked, as plain data and a function."""

    ask: Callable[[Call], Tensor]
    """The answer, laid out as ``x`` but for channels of a learned variance."""
    prediction: Prediction | None = None
    """None: the scheduler's configuration tells."""
    flow: bool = False
    """alpha + sigma = 1; otherwise a table of betas."""
    reversed_time: bool = False
    """1000 is clean."""
    video: bool = False
    packed: int = 0
    """Pixels along a side of a patch that the family's pipeline folds into channels; 0: none."""
    channels_first: bool = False
    """Channels of the answer are its second axis."""
    reads_text: bool = True
    always_latent: bool = True

    def fitting(self, network: nn.Module) -> Family:
        """For this very network."""
        config: Any = network.config
        if getattr(config, "cross_attention_dim", 1) is None:
            return replace(self, reads_text=False)
        return self


def _plain(call: Call) -> Tensor:
    return _sample(call.network(call.x, call.time))


def _unet(call: Call) -> Tensor:
    """Stable Diffusion 1.5, 2, and XL, which is told sizes besides."""
    config: Any = call.network.config
    more = {}
    if config.addition_embed_type == "text_time":
        high, wide = 8 * call.x.shape[-2], 8 * call.x.shape[-1]
        ids = call.x.new_tensor([high, wide, 0, 0, high, wide]).expand(len(call.x), 6)
        more = {"added_cond_kwargs": {"text_embeds": call.text["pooled"], "time_ids": ids}}
    text = call.text.get("embeds")
    return _sample(call.network(call.x, call.time, encoder_hidden_states=text, **more))


def _sd3(call: Call) -> Tensor:
    return _sample(call.network(
        hidden_states=call.x, timestep=call.time, encoder_hidden_states=call.text["embeds"],
        pooled_projections=call.text["pooled"],
    ))  # fmt: skip


def _flux(call: Call) -> Tensor:
    """Blocks of 2x2 latents are tokens; time is 0..1."""
    batch, _, high, wide = call.x.shape
    tokens = torch.nn.functional.pixel_unshuffle(call.x, 2).flatten(2).mT
    rows, columns = torch.meshgrid(torch.arange(high // 2), torch.arange(wide // 2), indexing="ij")
    ids = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1).to(call.x)
    text = call.text["embeds"]
    config: Any = call.network.config
    guidance = call.x.new_full((batch,), 3.5) if config.guidance_embeds else None
    found = _sample(call.network(
        hidden_states=tokens, timestep=call.time.to(call.x) / 1000, guidance=guidance,
        pooled_projections=call.text["pooled"], encoder_hidden_states=text,
        txt_ids=ids.new_zeros(text.shape[1], 3), img_ids=ids,
    ))  # fmt: skip
    blocks = found.mT.unflatten(2, (high // 2, wide // 2))
    return torch.nn.functional.pixel_shuffle(blocks, 2)


def _pixart(call: Call) -> Tensor:
    config: Any = call.network.config
    more: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
    if config.sample_size == 128:  # told sizes
        high, wide = 8.0 * call.x.shape[-2], 8.0 * call.x.shape[-1]
        size = call.x.new_tensor([[high, wide]]).expand(len(call.x), 2)
        more = {"resolution": size, "aspect_ratio": size[:, :1] / size[:, 1:]}
    return _sample(call.network(
        call.x, encoder_hidden_states=call.text["embeds"],
        encoder_attention_mask=call.text.get("mask"), timestep=call.time, added_cond_kwargs=more,
    ))  # fmt: skip


def _sana(call: Call) -> Tensor:
    scale = getattr(call.network.config, "timestep_scale", 1.0)
    return _sample(call.network(
        call.x, encoder_hidden_states=call.text["embeds"],
        encoder_attention_mask=call.text.get("mask"), timestep=call.time * scale,
    ))  # fmt: skip


def _channels_before_frames(call: Call) -> Tensor:
    """Wan and Mochi: [batch, channels, frames, height, width]."""
    more = {} if "mask" not in call.text else {"encoder_attention_mask": call.text["mask"]}
    found = _sample(call.network(
        hidden_states=call.x.transpose(1, 2), timestep=call.time.to(call.x),
        encoder_hidden_states=call.text["embeds"], **more,
    ))  # fmt: skip
    return found.transpose(1, 2)


def _frames_before_channels(call: Call) -> Tensor:
    """CogVideoX, of the models whose places are not rotary."""
    return _sample(call.network(
        hidden_states=call.x, timestep=call.time, encoder_hidden_states=call.text["embeds"],
    ))  # fmt: skip


def _ltx(call: Call) -> Tensor:
    """Every latent is a token; the VAE is 32 times smaller in space and 8 times in time."""
    batch, frames, channels, high, wide = call.x.shape
    tokens = call.x.permute(0, 1, 3, 4, 2).reshape(batch, -1, channels)
    found = _sample(call.network(
        hidden_states=tokens, encoder_hidden_states=call.text["embeds"],
        timestep=call.time.to(call.x), encoder_attention_mask=call.text.get("mask"),
        num_frames=frames, height=high, width=wide, rope_interpolation_scale=(8 / 25, 32, 32),
    ))  # fmt: skip
    return found.unflatten(1, (frames, high, wide)).permute(0, 1, 4, 2, 3)


def _sample(answer: Any) -> Tensor:
    return answer[0] if isinstance(answer, tuple) else answer.sample


_VIDEO = Family(ask=_channels_before_frames, prediction="flow", flow=True, video=True)

FAMILIES: Mapping[str, Family] = {
    "UNet2DModel": Family(ask=_plain, reads_text=False, always_latent=False),
    "UNet2DConditionModel": Family(ask=_unet),
    "SD3Transformer2DModel": Family(ask=_sd3, prediction="flow", flow=True),
    "FluxTransformer2DModel": Family(ask=_flux, prediction="flow", flow=True, packed=2),
    "PixArtTransformer2DModel": Family(ask=_pixart, channels_first=True),
    "SanaTransformer2DModel": Family(ask=_sana, prediction="flow", flow=True),
    "WanTransformer3DModel": _VIDEO,
    "MochiTransformer3DModel": replace(_VIDEO, prediction="reversed-flow", reversed_time=True),
    "LTXVideoTransformer3DModel": replace(_VIDEO, ask=_ltx),
    "CogVideoXTransformer3DModel": Family(ask=_frames_before_channels, video=True),
}
"""By the class of the network."""
