"""Families of diffusion networks: what each is given, and what it answers. A line for each.

Layouts: pictures are [batch, channels, height, width], videos [batch, frames, channels, height,
width]. ``time`` is that of the family's own clock, mostly 0..1000.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from scene4d.cameras.camera import Camera
from scene4d.cameras.conventions import flip_yz
from scene4d.errors import DataError, UsageError
from scene4d.optional import import_optional
from scene4d.priors.predictions import Prediction
from scene4d.priors.prior import Kind


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """What a network is asked."""

    network: nn.Module
    x: Tensor
    time: Tensor
    """[batch], or [batch, frames] where a first frame is given."""
    text: Mapping[str, Tensor] = field(default_factory=dict)
    """Empty for families that read none."""
    seen: Float[Tensor, "batch channels height width"] | None = None
    """Latents of the picture that is given."""
    camera: Camera | None = None
    """Of every frame of pixels, video after video."""
    shrink: tuple[int, int] = (8, 32)
    """How many frames, and pixels along a side, become one of latents."""

    def of(self, network: nn.Module, rows: Bool[Tensor, " batch"]) -> Call:
        """The same of some of the batch, of another network."""
        text = {name: value[rows] for name, value in self.text.items()}
        seen = None if self.seen is None else self.seen[rows]
        return replace(
            self, network=network, x=self.x[rows], time=self.time[rows], text=text, seen=seen
        )

    def frame_times(self) -> Float[Tensor, "batch frames"]:
        """The time of every frame of a video."""
        return self.time if self.time.ndim == 2 else self.time[:, None].expand(self.x.shape[:2])


Clock = Literal["steps", "sigma", "alpha", "log"]
"""What a time is: a step of a table of betas; 1000 sigma or 1000 alpha of a flow, alpha + sigma
being 1; log(sigma / alpha) / 4 (EDM)."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """How networks of one class are asked, as plain data and a function."""

    ask: Callable[[Call], Tensor]
    """The answer, laid out as ``x`` but for channels of a learned variance."""
    prediction: Prediction | None = None
    """None: the scheduler's configuration tells."""
    clock: Clock = "steps"
    video: bool = False
    packed: int = 0
    """Pixels along a side of a patch that the family's pipeline folds into channels; 0: none."""
    frame_by_frame: bool = False
    """The VAE takes frames of a video as pictures."""
    channels: tuple[Kind, ...] = ("rgb",)
    """What the VAE's pictures are of; depth is all three of its channels alike."""
    picture: Literal["no", "latents", "unscaled", "first"] = "no"
    """What becomes of the picture that is given: nothing; the network is given its latents, as the
    VAE's configuration scales them, or as they are; it is the first frame, whose time is 0."""
    fills: bool = False
    """Its input has channels beside the latents, and ``ask`` fills them."""
    camera: bool = False
    """It is told the cameras of all frames."""
    texts: tuple[str, ...] = ("embeds",)
    """What the pipeline's ``encode_prompt`` returns, by the names that ``ask`` reads; "" is left
    out. None of them: it reads no text."""
    always_latent: bool = True

    @property
    def flow(self) -> bool:
        """Whether alpha + sigma is 1."""
        return self.clock in ("sigma", "alpha")

    @property
    def conditions(self) -> frozenset[str]:
        """Fields of a condition that its networks read."""
        read = {"text": bool(self.texts), "picture": self.picture != "no", "camera": self.camera}
        return frozenset(name for name, reads in read.items() if reads)

    def fitting(
        self, network: nn.Module, settings: Mapping[str, Any], *, where: object = None
    ) -> Family:
        """For this very network. ``settings``: of the pipeline. Raises :class:`DataError` for one
        that wants what is never given."""
        config: Any = network.config
        found = self
        if getattr(config, "cross_attention_dim", 1) is None:
            found = replace(found, texts=())
        if getattr(config, "addition_embed_type", None) == "text_time":  # SDXL
            found = replace(found, texts=_POOLED)
        if settings.get("expand_timesteps"):
            found = replace(found, ask=_wan_tokens, picture="first")
        sides = max(found.packed, 1) ** 2 * (2 if found.shows_picture else 1)
        given = found.latent_channels(network) * sides
        given = given if not found.fills else config.in_channels
        goes_on = [n for n in ("image_condition_type", "image_dim") if getattr(config, n, None)]
        goes_on += ["task_type i2v"] if getattr(config, "task_type", None) == "i2v" else []
        if config.in_channels != given or goes_on:
            raise DataError(
                f"holds a {type(network).__name__} that wants pictures or masks which are not told "
                f"here ({config.in_channels} channels in place of {given}"
                f"{''.join(f', {name}' for name in goes_on)})",
                where=where, fix="give the model of the family that is made from texts alone",
            )  # fmt: skip
        return found

    @property
    def shows_picture(self) -> bool:
        """Whether the network's input holds a picture's latents beside those that it cleans."""
        return self.picture in ("latents", "unscaled")

    def latent_channels(self, network: nn.Module) -> int:
        """Of what the network cleans; its answer may hold a variance besides."""
        config: Any = network.config
        out = getattr(config, "out_channels", None) or config.in_channels
        return int(min(config.in_channels, out)) // max(self.packed, 1) ** 2


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


def _after_the_picture(call: Call) -> Tensor:
    """Marigold: the picture's latents go before those of its depth or normals."""
    assert call.seen is not None
    return _unet(replace(call, x=torch.cat([call.seen, call.x], dim=1)))


def _svd(call: Call) -> Tensor:
    """The picture stands beside every frame; told are 7 frames a second (less 1), the motion 127 of
    255, and that no noise was added to the picture."""
    assert call.seen is not None
    seen = call.seen[:, None].expand(-1, call.x.shape[1], -1, -1, -1)
    told = call.x.new_tensor([6.0, 127.0, 0.0]).expand(len(call.x), 3)
    return _sample(call.network(
        torch.cat([call.x, seen], dim=2), call.time.to(call.x), added_time_ids=told,
        encoder_hidden_states=call.text["embeds"],
    ))  # fmt: skip


def _motion(call: Call) -> Tensor:
    """AnimateDiff: a text for every frame."""
    text = call.text["embeds"].repeat_interleave(call.x.shape[1], dim=0)
    found = call.network(call.x.transpose(1, 2), call.time, encoder_hidden_states=text)
    return _sample(found).transpose(1, 2)


def _channels_before_frames(call: Call) -> Tensor:
    """Wan and Mochi: [batch, channels, frames, height, width]."""
    more = {} if "mask" not in call.text else {"encoder_attention_mask": call.text["mask"]}
    found = _sample(call.network(
        hidden_states=call.x.transpose(1, 2), timestep=call.time.float(),
        encoder_hidden_states=call.text["embeds"], **more,
    ))  # fmt: skip
    return found.transpose(1, 2)


def _wan_tokens(call: Call) -> Tensor:
    """Wan 2.2 of 5B: a time for every token."""
    high, wide = _patches(call)
    times = call.frame_times().repeat_interleave(high * wide, dim=1)
    return _channels_before_frames(replace(call, time=times))


def _sana_video(call: Call) -> Tensor:
    """A time for every frame where the first is given."""
    times = call.time if call.time.ndim == 1 else call.time[:, None, :, None, None].expand(
        -1, -1, -1, *_patches(call))  # fmt: skip
    return _channels_before_frames(replace(call, time=times))


def _patches(call: Call) -> tuple[int, int]:
    config: Any = call.network.config
    _, high, wide = config.patch_size
    return call.x.shape[-2] // high, call.x.shape[-1] // wide


def _sana_wm(call: Call) -> Tensor:
    """A time for every frame, and cameras relative to the first: of every latent frame pose and
    intrinsics, of every frame of pixels Plücker coordinates of rays."""
    packing: Any = import_optional("diffusers.pipelines.sana_wm.cam_utils", extra="priors",
                                   needed_for="SanaWM's cameras")  # fmt: skip
    assert call.camera is not None
    frames, side = call.shrink
    high, wide = side * call.x.shape[-2], side * call.x.shape[-1]
    camera = call.camera.resized(wide, high)
    poses = flip_yz(camera.c2w).float().cpu()
    lens = camera.K[:, (0, 1, 0, 1), (0, 1, 2, 2)].float().cpu()
    count = frames * (call.x.shape[1] - 1) + 1
    if len(poses) != len(call.x) * count:
        raise UsageError(
            f"{len(poses)} cameras were given to {len(call.x)} videos of {count} frames of pixels "
            f"({call.x.shape[1]} of latents)", where=type(call.network).__name__,
            fix="give the camera of every frame, video after video",
        )  # fmt: skip
    told = [
        packing.prepare_camera(p.numpy(), k.numpy(), target_size=(high, wide),
                               vae_stride=(frames, side, side))
        for p, k in zip(poses.split(count), lens.split(count), strict=True)
    ]  # fmt: skip
    rays, plucker = (
        torch.stack([each[name] for each in told]).to(call.x)
        for name in ("raymap", "chunk_plucker")
    )
    found = _sample(call.network(
        # it cuts times to whole steps: 499.99997 is 500
        call.x.transpose(1, 2), call.frame_times()[:, None].round(decimals=2),
        call.text["embeds"], mask=call.text["mask"], camera_conditions=rays, chunk_plucker=plucker,
    ))  # fmt: skip
    return found.transpose(1, 2)


def _hunyuan(call: Call) -> Tensor:
    """Told is the pipeline's usual guidance, 6, a thousandfold."""
    config: Any = call.network.config
    guidance = call.x.new_full((len(call.x),), 6000.0) if config.guidance_embeds else None
    found = _sample(call.network(
        hidden_states=call.x.transpose(1, 2), timestep=call.time.float(),
        encoder_hidden_states=call.text["embeds"], encoder_attention_mask=call.text["mask"],
        pooled_projections=call.text["pooled"], guidance=guidance,
    ))  # fmt: skip
    return found.transpose(1, 2)


def _hunyuan15(call: Call) -> Tensor:
    """Of texts alone: latents and mask of a picture are 0, and so is one token of it, which is
    masked for that reason."""
    config: Any = call.network.config
    x, text = call.x.transpose(1, 2), call.text
    nothing = x.new_zeros(len(x), config.in_channels - x.shape[1], *x.shape[2:])
    found = _sample(call.network(
        hidden_states=torch.cat([x, nothing], dim=1), timestep=call.time.float(),
        encoder_hidden_states=text["embeds"], encoder_attention_mask=text["mask"],
        encoder_hidden_states_2=text["embeds_2"], encoder_attention_mask_2=text["mask_2"],
        image_embeds=x.new_zeros(len(x), 1, config.image_embed_dim),
    ))  # fmt: skip
    return found.transpose(1, 2)


def _cogvideox(call: Call) -> Tensor:
    config: Any = call.network.config
    places = _rotary(call) if config.use_rotary_positional_embeddings else None
    return _sample(call.network(
        hidden_states=call.x, timestep=call.time, encoder_hidden_states=call.text["embeds"],
        image_rotary_emb=places,
    ))  # fmt: skip


def _rotary(call: Call) -> tuple[Tensor, Tensor]:
    """Places of CogVideoX's patches: of version 1.0 within the size that it was trained at, of 1.5,
    whose patches are of several frames, counted."""
    needed: Any = {"extra": "priors", "needed_for": "CogVideoX"}
    embeddings: Any = import_optional("diffusers.models.embeddings", **needed)
    config: Any = call.network.config
    side, long = config.patch_size, config.patch_size_t
    frames = call.x.shape[1]
    if frames % (long or 1):
        raise UsageError(f"this model takes frames by {long}, and there are {frames} of latents",
                         where=type(call.network).__name__, fix=f"give a multiple of {long}"
                         )  # fmt: skip
    grid = (call.x.shape[-2] // side, call.x.shape[-1] // side)
    largest = (config.sample_height // side, config.sample_width // side)
    more: dict[str, Any] = {"crops_coords": None, "grid_type": "slice", "max_size": largest}
    if long is None:
        pipeline: Any = import_optional("diffusers.pipelines.cogvideo.pipeline_cogvideox", **needed)
        crop = pipeline.get_resize_crop_region_for_grid(grid, largest[1], largest[0])
        more = {"crops_coords": crop}
    cos, sin = embeddings.get_3d_rotary_pos_embed(
        config.attention_head_dim, grid_size=grid, temporal_size=frames // (long or 1),
        device=call.x.device, **more,
    )  # fmt: skip
    return cos, sin


def _ltx(call: Call) -> Tensor:
    """Every latent is a token; the VAE is 32 times smaller in space and 8 times in time."""
    batch, frames, channels, high, wide = call.x.shape
    tokens = call.x.permute(0, 1, 3, 4, 2).reshape(batch, -1, channels)
    found = _sample(call.network(
        hidden_states=tokens, encoder_hidden_states=call.text["embeds"],
        timestep=call.time.float(), encoder_attention_mask=call.text.get("mask"),
        num_frames=frames, height=high, width=wide, rope_interpolation_scale=(8 / 25, 32, 32),
    ))  # fmt: skip
    return found.unflatten(1, (frames, high, wide)).permute(0, 1, 4, 2, 3)


def _sample(answer: Any) -> Tensor:
    return answer[0] if isinstance(answer, tuple) else answer.sample


_MASKED = ("embeds", "mask")
_POOLED = ("embeds", "", "pooled")
_FLOW = Family(ask=_channels_before_frames, prediction="flow", clock="sigma")
_VIDEO = replace(_FLOW, video=True)
_UNET = Family(ask=_unet)

FAMILIES: Mapping[str, Family] = {
    "UNet2DModel": Family(ask=_plain, texts=(), always_latent=False),
    "UNet2DConditionModel": _UNET,
    "SD3Transformer2DModel": replace(_FLOW, ask=_sd3, texts=_POOLED),
    "FluxTransformer2DModel": replace(_FLOW, ask=_flux, packed=2, texts=("embeds", "pooled")),
    "PixArtTransformer2DModel": Family(ask=_pixart, texts=_MASKED),
    "SanaTransformer2DModel": replace(_FLOW, ask=_sana, texts=_MASKED),
    "UNetSpatioTemporalConditionModel": Family(
        ask=_svd, clock="log", video=True, frame_by_frame=True, picture="unscaled"
    ),
    "UNetMotionModel": Family(ask=_motion, video=True, frame_by_frame=True),
    "WanTransformer3DModel": _VIDEO,
    "MochiTransformer3DModel": replace(
        _VIDEO, prediction="reversed-flow", clock="alpha", texts=_MASKED
    ),
    "LTXVideoTransformer3DModel": replace(_VIDEO, ask=_ltx, texts=_MASKED),
    "CogVideoXTransformer3DModel": Family(ask=_cogvideox, video=True),
    "HunyuanVideoTransformer3DModel": replace(
        _VIDEO, ask=_hunyuan, texts=("embeds", "pooled", "mask")
    ),
    "HunyuanVideo15Transformer3DModel": replace(
        _VIDEO, ask=_hunyuan15, fills=True, texts=("embeds", "mask", "embeds_2", "mask_2")
    ),
    "SanaVideoTransformer3DModel": replace(_VIDEO, ask=_sana_video, picture="first", texts=_MASKED),
    "SanaWMTransformer3DModel": replace(
        _VIDEO, ask=_sana_wm, picture="first", camera=True, texts=_MASKED
    ),
}
"""By the class of the network."""

PIPELINES: Mapping[str, Family] = {
    "MarigoldDepthPipeline": replace(
        _UNET, ask=_after_the_picture, picture="latents", channels=("depth",)
    ),
    "MarigoldNormalsPipeline": replace(
        _UNET, ask=_after_the_picture, picture="latents", channels=("normals",)
    ),
}
"""By the class of the pipeline, where that says more than the network."""


def family_of(pipeline: Any) -> Family:
    """The family of a diffusers pipeline. Raises :class:`UsageError` for none that is known."""
    network: Any = getattr(pipeline, "transformer", None) or getattr(pipeline, "unet", None)
    name = type(network).__name__
    if name not in FAMILIES:
        raise UsageError(f"the network {name} is of no known family", where=type(pipeline).__name__,
                         fix=f"known networks: {', '.join(sorted(FAMILIES))}")  # fmt: skip
    family = PIPELINES.get(type(pipeline).__name__, FAMILIES[name])
    return family.fitting(network, pipeline.config)
