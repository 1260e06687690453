"""A critic that tells repaired pictures from clean ones, for the fixer's adversarial term.

Small heads on the five feature maps of a frozen network, here LPIPS's AlexNet, as SF-V has them on
those of its own encoder (Zhang et al. 2024, arXiv 2406.04324, section 3.2), with the hinge loss
(Lim and Ye 2017). It learns beside the fixer, by an optimiser of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from scene4d.evaluation.lpips import alexnet_features

_CHANNELS = (64, 192, 384, 256, 256)
_WIDTH = 32
_RATE = 2e-4
_BETAS = (0.0, 0.99)
"""No momentum, as is usual where what is told apart changes all the time."""
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Critic:
    """Scores of pictures, higher for what looks clean."""

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(1 << 31, (), generator=generator)))
            self.heads = nn.ModuleList([_head(channels) for channels in _CHANNELS]).to(device)
        self.optimiser = torch.optim.Adam(self.heads.parameters(), lr=_RATE, betas=_BETAS)
        for parameter in self.heads.parameters():  # so that its moments are there to be saved
            parameter.grad = torch.zeros_like(parameter)
        self.optimiser.step()

    def scores(
        self, pictures: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch 1 h w"]]:
        """Of each feature map, at each of its places; pictures 0..1."""
        maps = alexnet_features(pictures.permute(0, 2, 3, 1))
        return [head(part) for head, part in zip(self.heads, maps, strict=True)]

    def learn(self, made: Tensor, clean: Tensor) -> Float[Tensor, ""]:
        """A step of its own training: the hinge loss, before the step."""
        self.optimiser.zero_grad()
        with torch.enable_grad():
            found = zip(self.scores(clean), self.scores(made.detach()), strict=True)
            loss = torch.stack([
                functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
                for real, fake in found
            ]).mean()  # fmt: skip
            loss.backward()
        self.optimiser.step()
        return loss.detach()

    def loss_of(self, made: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, ""]:
        """What the fixer is told: minus the mean score; nothing of it reaches the heads."""
        self.heads.requires_grad_(False)
        loss = -torch.stack([part.mean() for part in self.scores(made)]).mean()
        self.heads.requires_grad_(True)
        return loss

    def state_tensors(self) -> dict[str, Tensor]:
        """Weights and moments."""
        found = {}
        for name, parameter in self.heads.named_parameters():
            moments = self.optimiser.state[parameter]
            found[f"critic.{name}"] = parameter.detach()
            found |= {f"critic.{name}.{kind}": moments[kind] for kind in _MOMENTS}
        return found

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores :meth:`state_tensors`."""
        with torch.no_grad():
            for name, own in self.state_tensors().items():
                own.copy_(tensors[name])


def _head(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, _WIDTH, 1), nn.LeakyReLU(0.2), nn.Conv2d(_WIDTH, 1, 1))
