"""Diffusion models in diffusers' layout as priors: one adapter, and a line for each family.

A folder holds ``model_index.json``, a network (``unet`` or ``transformer``), a scheduler's
configuration and, of latents, a VAE. What a family's network is given and what it means is in
:mod:`scene4d.priors.families`; the conversion to clean pictures in
:mod:`scene4d.priors.predictions`. Weights are safetensors, and no code of a folder is run. Texts
are given as embeddings (:mod:`scene4d.priors.prompts`), so that no text encoder is needed.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.errors import DataError, UsageError
from scene4d.files import printable, read_json
from scene4d.optional import import_optional
from scene4d.priors.families import FAMILIES, PIPELINES, Call, Family
from scene4d.priors.lora import Lora, capture_of, merge
from scene4d.priors.predictions import Prediction, x0_from
from scene4d.priors.prior import NOTHING, Condition, LatentPrior, PriorInfo, broadcast
from scene4d.priors.prompts import Prompts, load_prompts
from scene4d.priors.reuse import first_block_cache, of_text

INDEX = "model_index.json"
LOW_NOISE = "transformer_2"
"""The second of a pair of networks, in a folder."""
_STEPS = 1000
_PROBE, _PROBE_SIDE = 17, 64
"""Pictures, and pixels along a side, of a video that tells how a VAE counts frames."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LowNoise:
    """A second network, for little noise."""

    network: nn.Module
    below: float
    """The family's time below which it is asked."""


class DiffusionPrior(LatentPrior):
    """A diffusion model; of latents unless it has no VAE."""

    def __init__(
        self,
        network: nn.Module,
        family: Family,
        *,
        scheduler: Mapping[str, Any],
        vae: nn.Module | None = None,
        prompts: Prompts | None = None,
        frames: int | None = None,
        low_noise: LowNoise | None = None,
    ) -> None:
        """``scheduler``: its configuration; ``frames``: of a video model, in latents."""
        super().__init__()
        self.network, self.family, self.vae, self.prompts = network, family, vae, prompts
        self.low_network = None if low_noise is None else low_noise.network
        self.boundary = 0.0 if low_noise is None else low_noise.below
        self._reuses = False
        self.prediction: Prediction = family.prediction or _prediction_of(scheduler)
        self.log_ratios = _log_ratios(scheduler) if family.clock == "steps" else None
        ratios = (0.0, math.inf)
        if self.log_ratios is not None:
            ends = self.log_ratios[0].exp(), self.log_ratios[-1].exp()
            ratios = (float(ends[0]), float(ends[1]))
        elif family.clock == "log":
            ratios = (scheduler.get("sigma_min") or 0.002, scheduler.get("sigma_max") or 700.0)
        self.info = PriorInfo(
            channels=family.channels,
            ratios=ratios,
            conditions=family.conditions,
            needs_picture=family.shows_picture,
            frames=frames if family.video else None,
            space="latent" if vae is not None or family.always_latent else "pixels",
            latent_channels=family.latent_channels(network),
        )

    def denoise(
        self,
        x_t: Float[Tensor, "*batch channels height width"],
        alpha: Float[Tensor, " *batch"],
        sigma: Float[Tensor, " *batch"],
        condition: Condition = NOTHING,
    ) -> Float[Tensor, "*batch channels height width"]:
        """The network asked once, at the nearest time that it knows. Raises :class:`UsageError` for
        a text whose embedding is not there, a picture or cameras that are wanted and not given, and
        where half precision overflows."""
        flow = self.family.flow
        # networks of one kind of level see pictures of the other kind scaled: x0 is the same
        total = alpha + sigma if flow else (alpha.square() + sigma.square()).sqrt()
        a, s = alpha / total, sigma / total
        x = x_t / broadcast(total, x_t)
        network: Any = self.network
        kind = x.new_empty(0, dtype=network.dtype, device=network.device)
        text = self._embedding(condition, len(x), kind)
        seen = self._seen(condition, text.pop("seen", None), x)
        time, first = self._times(a, s).to(x.device), None
        if seen is not None and self.family.picture == "first":
            first = seen[:, None]
            x = torch.cat([first.to(x), x[:, 1:]], dim=1)
            time = time[:, None] * (torch.arange(x.shape[1], device=x.device) > 0)
        if self.family.camera and condition.camera is None:
            raise UsageError("this model is told where cameras stand, and there are none",
                             where=type(self.network).__name__,
                             fix="give a condition with the camera of every frame")  # fmt: skip
        with of_text(self._networks if self._reuses else (), condition.text):
            output = self._answer(Call(
                network=self.network, x=x.to(kind), time=time, text=text, camera=condition.camera,
                seen=None if seen is None else seen.to(kind), shrink=_shrink(self.vae),
            ))  # fmt: skip
        x0 = x0_from(self.prediction, output.to(x), x, a, s)
        if first is not None:
            x0 = torch.cat([first.to(x0), x0[:, 1:]], dim=1)
        return x0.to(x_t)

    @property
    def _networks(self) -> list[nn.Module]:
        return [n for n in (self.network, self.low_network) if n is not None]

    @contextmanager
    def reusing(self, most: float) -> Iterator[None]:
        """Diffusers' first-block cache, where it has one of this network: else
        :class:`UsageError`."""
        with first_block_cache(self._networks, most):
            self._reuses = True
            try:
                yield
            finally:
                self._reuses = False

    def _answer(self, call: Call) -> Tensor:
        """That of the network of much noise, or of the one of little. Raises :class:`UsageError`
        where it is not finite."""
        output = self.family.ask(call) if self.low_network is None else self._of_pair(call)
        if output.shape[-3] == 2 * self.info.num_channels:
            output = output.chunk(2, dim=-3)[0]  # the other half is a learned variance
        if not bool(torch.isfinite(output).all()):
            half = output.dtype in (torch.float16, torch.bfloat16)
            raise UsageError(
                f"the network's answer in {str(output.dtype).removeprefix('torch.')} is not finite",
                where=type(self.network).__name__,
                fix="load it in bfloat16 or float32" if half else "its weights may be damaged",
            )
        return output

    def _of_pair(self, call: Call) -> Tensor:
        assert self.low_network is not None
        high = call.time.reshape(len(call.x), -1).amax(dim=1) >= self.boundary
        found = torch.empty_like(call.x)
        for network, rows in ((self.network, high), (self.low_network, ~high)):
            if bool(rows.any()):
                found[rows] = self.family.ask(call.of(network, rows))
        return found

    def _seen(
        self, condition: Condition, kept: Tensor | None, x: Tensor
    ) -> Float[Tensor, "batch channels height width"] | None:
        """Latents of the picture that is given, or that are kept beside a text."""
        family = self.family
        if family.picture == "no":
            return None
        if kept is None and condition.picture is None:
            if not family.shows_picture:
                return None
            raise UsageError("this model answers about a picture, and there is none",
                             where=type(self.network).__name__,
                             fix="give a condition with a picture")  # fmt: skip
        if kept is None:
            assert condition.picture is not None
            found = self._encoded(
                condition.picture, alone=True, scaled=family.picture != "unscaled"
            )
            kept = found[:, 0] if family.video else found
        return kept.expand(len(x), x.shape[-3], *x.shape[-2:])

    @property
    def num_pictures(self) -> int | None:
        """Pictures of a video: its first latent frame is one of them, each other one several."""
        return None if self.info.frames is None else 1 + self._stride * (self.info.frames - 1)

    def of_videos(self, num_pictures: int) -> DiffusionPrior:
        """The same network, of so many pictures or the most that its latents hold up to them."""
        if self.info.frames is None:
            raise UsageError("this model knows single pictures", where=type(self.network).__name__)
        other = copy.copy(self)
        frames = 1 + (num_pictures - 1) // self._stride
        other.info = replace(self.info, frames=frames)
        return other

    @cached_property
    def _stride(self) -> int:
        """Pictures of a latent frame, by the VAE itself: names of it in configurations differ."""
        if self.family.frame_by_frame or self.vae is None:
            return 1
        black = next(self.vae.parameters()).new_zeros(1, _PROBE, 3, *[_PROBE_SIDE] * 2)
        with torch.no_grad():
            return (_PROBE - 1) // max(1, self._encoded(black).shape[-4] - 1)

    def encode(self, pictures: Float[Tensor, "*batch channels h w"]) -> Tensor:
        """Latents of pictures (-1..1), normalised as the network knows them."""
        return self._encoded(pictures)

    def _encoded(self, pictures: Tensor, *, alone: bool = False, scaled: bool = True) -> Tensor:
        """``alone``: pictures, of which each is a video; ``scaled``: as the configuration tells."""
        vae: Any = self._vae()
        kind = next(vae.parameters())
        rgb = pictures.expand(*pictures.shape[:-3], 3, -1, -1)  # depth is three channels there
        given = rgb[:, None] if alone and self.family.video else rgb
        found = vae.encode(self._to_vae(given).to(kind))
        mean = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latent
        if scaled:
            shift, scale = _normalisation(vae, mean)
            mean = (mean - shift) * scale
        return self._from_vae(mean, len(given)).to(pictures)

    def decode(self, latents: Tensor) -> Float[Tensor, "*batch channels h w"]:
        """Pictures of latents, -1..1."""
        vae: Any = self._vae()
        kind = next(vae.parameters())
        z = self._to_vae(latents).to(kind)
        shift, scale = _normalisation(vae, z)
        # the decoder of SVD looks at the frames beside
        more = {"num_frames": latents.shape[-4]} if "Temporal" in type(vae).__name__ else {}
        rgb = self._from_vae(vae.decode(z / scale + shift, **more).sample, len(latents)).to(latents)
        if self.info.channels == ("depth",):
            return rgb.mean(dim=-3, keepdim=True)
        return rgb

    def _to_vae(self, x: Tensor) -> Tensor:
        """Videos lie as [batch, channels, frames, height, width] there, or frame by frame."""
        if not self.family.video:
            return x
        return x.flatten(0, 1) if self.family.frame_by_frame else x.movedim(-4, -3)

    def _from_vae(self, x: Tensor, videos: int) -> Tensor:
        if not self.family.video:
            return x
        return x.unflatten(0, (videos, -1)) if self.family.frame_by_frame else x.movedim(-3, -4)

    def _vae(self) -> nn.Module:
        if self.vae is None:
            raise UsageError("this model has no VAE to encode or decode latents with",
                             fix="give a folder with one")  # fmt: skip
        return self.vae

    def _times(self, alpha: Tensor, sigma: Tensor) -> Float[Tensor, " batch"]:
        if self.family.flow:
            return _STEPS * (alpha if self.family.clock == "alpha" else sigma)
        wanted = (sigma.double() / alpha.double()).log().cpu()
        if self.log_ratios is None:
            return (0.25 * wanted).float()
        steps = torch.searchsorted(self.log_ratios, wanted).clamp(1, len(self.log_ratios) - 1)
        low, high = self.log_ratios[steps - 1], self.log_ratios[steps]
        share = ((wanted - low) / (high - low)).clamp(0, 1)
        return (steps - 1 + share).round()

    def _embedding(self, condition: Condition, count: int, like: Tensor) -> dict[str, Tensor]:
        if not self.family.texts:
            return {}
        text = condition.text or ""
        if self.prompts is None or text not in self.prompts.texts:
            raise UsageError(
                f"there is no embedding of the text {text!r}",
                where="the prior's prompts",
                fix="make it once with scene4d.priors.prompts.embed, and keep the file",
            )
        return {
            name: value.to(like.device, like.dtype if value.is_floating_point() else value.dtype)
            .expand(count, *value.shape[1:])
            for name, value in self.prompts.of(text).items()
        }  # fmt: skip


def _shrink(vae: Any) -> tuple[int, int]:
    """How many frames, and pixels along a side, become one of latents."""
    return (getattr(vae, "temporal_compression_ratio", 8),
            getattr(vae, "spatial_compression_ratio", 32))  # fmt: skip


def _log_ratios(scheduler: Mapping[str, Any]) -> Float[Tensor, " steps"]:
    """log sigma / alpha of every step of a scheduler of betas."""
    steps = int(scheduler.get("num_train_timesteps", _STEPS))
    first, last = scheduler.get("beta_start", 1e-4), scheduler.get("beta_end", 0.02)
    kind = scheduler.get("beta_schedule", "linear")
    if kind == "linear":
        betas = torch.linspace(first, last, steps, dtype=torch.float32)
    elif kind == "scaled_linear":
        betas = torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float32) ** 2
    else:
        raise DataError(f"the schedule of betas {kind!r} is not known",
                        fix="linear and scaled_linear are")  # fmt: skip
    alphas = (1 - betas).cumprod(0)
    if scheduler.get("snr_shift_scale") is not None:  # CogVideoX
        alphas = alphas / (
            scheduler["snr_shift_scale"] + (1 - scheduler["snr_shift_scale"]) * alphas
        )
    if scheduler.get("rescale_betas_zero_snr"):
        roots = alphas.sqrt()
        roots = (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
        alphas = roots.square().clamp_min(1e-12)
    alphas = alphas.double()
    return 0.5 * ((1 - alphas) / alphas).log()


def _prediction_of(scheduler: Mapping[str, Any]) -> Prediction:
    told = scheduler.get("prediction_type", "epsilon")
    known: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
    if told not in known:
        raise DataError(f"a network that predicts {told!r} is not known",
                        fix=f"known are {', '.join(known)}")  # fmt: skip
    return known[told]


def _normalisation(vae: Any, like: Tensor) -> tuple[Any, Any]:
    """Shift and scale of its latents, as its configuration tells: z = (latent - shift) * scale."""
    config = vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None and hasattr(vae, "latents_mean"):  # LTX keeps them as buffers
        mean, std = vae.latents_mean, vae.latents_std
    if mean is not None and std is not None:
        shape = (1, -1, *[1] * (like.ndim - 2))
        off, spread = (torch.as_tensor(v).to(like).view(shape) for v in (mean, std))
        factor = getattr(config, "scaling_factor", None) if "LTX" in type(vae).__name__ else None
        return off, (factor or 1.0) / spread
    return getattr(config, "shift_factor", None) or 0.0, getattr(
        config, "scaling_factor", None
    ) or 1.0


def load_diffusion(
    folder: Path, *, prompts: Prompts | None = None, dtype: torch.dtype = torch.float32,
    frames: int | None = None, loras: Sequence[Lora] = (),
) -> DiffusionPrior:  # fmt: skip
    """The prior of a folder, with the low-rank layers that are given merged into it. Raises
    :class:`DataError` for one that holds no model of a known family, or none in safetensors."""
    index = index_of(folder)
    sub, name = network_of(index, where=folder)
    network = _part(folder, sub, name, dtype)
    family = PIPELINES.get(index["_class_name"], FAMILIES[name])
    family = family.fitting(network, index, where=folder)
    if family.video and frames is None:
        frames = 1
    low_noise = _low_noise(folder, index, dtype)
    networks: dict[str, nn.Module] = {sub: network}
    if low_noise is not None:
        networks[LOW_NOISE] = low_noise.network
    for lora in loras:
        merge(lora, networks)
    vae = _part(folder, "vae", index["vae"][1], dtype) if index.get("vae", [None])[0] else None
    settings = folder / "scheduler" / "scheduler_config.json"
    scheduler: Any = read_json(settings)
    return DiffusionPrior(
        network, family, scheduler=scheduler, vae=vae, prompts=prompts, frames=frames,
        low_noise=low_noise,
    )  # fmt: skip


def _low_noise(folder: Path, index: Mapping[str, Any], dtype: torch.dtype) -> LowNoise | None:
    """The second of a pair of networks."""
    below, (of, name) = index.get("boundary_ratio"), index.get(LOW_NOISE, (None, None))
    if below is None:
        return None
    if not of:
        raise DataError(f"holds one network of two: there is no {LOW_NOISE}", where=folder,
                        fix="give the whole folder of the model")  # fmt: skip
    return LowNoise(network=_part(folder, LOW_NOISE, name, dtype), below=_STEPS * below)


def network_of(index: Mapping[str, Any], *, where: object = None) -> tuple[str, str]:
    """Name and class of the network in a folder of the ``index``. Raises :class:`DataError` for one
    of no known family."""
    sub = next((name for name in ("transformer", "unet") if name in index), None)
    name = "" if sub is None else str(index[sub][1])
    if sub is None or name not in FAMILIES:
        raise DataError(
            f"holds a {index.get('_class_name', 'model')}, which is of no known family",
            where=where, fix=f"known networks: {', '.join(sorted(FAMILIES))}",
        )  # fmt: skip
    return sub, name


def index_of(folder: Path) -> dict[str, Any]:
    """What ``model_index.json`` says: pairs of library and class, and the pipeline's settings.
    Raises :class:`DataError` where there is none."""
    if not os.path.isfile(folder / INDEX):
        raise DataError(f"is no diffusion model: it has no {INDEX}", where=printable(folder),
                        fix="give a folder as diffusers' save_pretrained writes it")  # fmt: skip
    found: Any = read_json(folder / INDEX)
    if not isinstance(found, dict):
        raise DataError("is no index of a diffusion model", where=folder / INDEX)
    parts = {n: v for n, v in found.items() if not isinstance(v, list) or len(v) == 2}
    return {**parts, "_class_name": str(found.get("_class_name"))}


def _part(folder: Path, sub: str, name: str, dtype: torch.dtype) -> nn.Module:
    """A network of a folder, frozen."""
    diffusers = import_optional("diffusers", extra="priors", needed_for="diffusion models")
    cls = getattr(diffusers, name, None)
    if cls is None:
        raise DataError(f"names a {name}, which this diffusers does not have",
                        where=folder / sub, fix="update diffusers")  # fmt: skip
    try:
        made = cls.from_pretrained(
            folder / sub, torch_dtype=dtype, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, json.JSONDecodeError) as error:
        told = str(error).strip().split("\n")[0]
        raise DataError(f"cannot be loaded ({told})", where=folder / sub,
                        fix="give weights in safetensors (*.safetensors); pickles are not read"
                        ) from error  # fmt: skip
    return made.eval().requires_grad_(False)


PROMPTS = "prompts.safetensors"
LORA = "pytorch_lora_weights.safetensors"
"""As diffusers' ``save_lora_weights`` names it."""


def load_folder(folder: Path, *, loras: Sequence[Lora] = ()) -> DiffusionPrior:
    """The prior of a folder, with the embeddings that lie beside it."""
    texts = folder / PROMPTS
    prompts = load_prompts(texts) if texts.is_file() else None
    return load_diffusion(folder, prompts=prompts, loras=loras)


class DiffusersKind:
    """Diffusion models as ``--prior`` finds them."""

    description = (
        f"a folder that diffusers' save_pretrained wrote, texts in its {PROMPTS}, "
        f"low-rank layers in its {LORA}"
    )

    def takes(self, place: Path) -> bool:
        """Whether there is an index of a model."""
        return os.path.isfile(place / INDEX)

    def load(self, place: Path | None, task: object) -> DiffusionPrior:
        """The prior, with the embeddings and the low-rank layers that lie beside it. Raises
        :class:`UsageError` without a folder."""
        if place is None:
            raise UsageError("diffusers needs a model", where="--prior",
                             fix="give diffusers:FOLDER, or the folder alone")  # fmt: skip
        lora = place / LORA
        if not lora.is_file():
            return load_folder(place)
        made = load_folder(place, loras=[Lora(path=lora)])
        made.capture = capture_of(lora)
        return made
