"""Nodes whose poses a network tells from time and from where each node is at rest.

As the deformation network of 4Real (Yu et al. 2024): 8 layers of 256 with sines of its inputs, here
once per node, not per Gaussian. Files hold splines: knots are fitted to what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.methods.deformable.nodes import Nodes, SplineNodes, Timing
from scene4d.rendering.motion.poses import pose_product, quat_product
from scene4d.rendering.motion.splines import continuous, fitted_knots, spline_poses
from scene4d.representations.saved import Form, form, module_forms

LAYERS, WIDTH, SKIP = 8, 256, 4
"""Layers before the last one, their width, and the one that sees the inputs once more."""
PLACE_BANDS, TIME_BANDS = 4, 6
"""Octaves of sines: the finest of places are about as long as nodes are apart, those of time a
thirtieth of the motion."""
_PER_KNOT = 4
"""Moments between two knots that these are fitted to."""
_FITTED_PER_KNOT = 16
"""The same that the network is fitted at: its finest sines are held between them, too."""
_FITTING_STEPS, _BATCH, _RATE = 800, 512, 2e-3


class NetworkNodes(Nodes):
    """One network for the poses of all nodes."""

    motion = "network"
    homes: Tensor
    """[nodes, 3] by which the network knows a node, -1..1."""
    unit: Tensor
    """[1] scene units of the network's numbers."""

    BUFFERS = (*Nodes.BUFFERS, "homes", "unit", "origins")
    origins: Tensor
    """[nodes, 7] poses that the network's are changes of."""

    def __init__(self, tensors: Mapping[str, Tensor], timing: Timing) -> None:
        """``tensors``: by the names above, and the network's where there are any."""
        super().__init__(tensors, timing)
        self.network = _Network()
        prefix = "network."
        weights = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        if weights:
            self.network.load_state_dict(weights)

    @classmethod
    def forms(cls) -> dict[str, Form]:
        """Those of all nodes, and the network's."""
        return {
            **super().forms(), "homes": form("nodes 3"), "unit": form("1"),
            "origins": form("nodes 7"), **module_forms(_Network, within="network"),
        }  # fmt: skip

    @classmethod
    def fitted(
        cls, splines: SplineNodes, generator: torch.Generator, *, steps: int = _FITTING_STEPS
    ) -> NetworkNodes:
        """What moves as ``splines`` do, as nearly as so many steps of fitting bring it."""
        rest = splines.rest
        low, high = rest[:, 4:].amin(0), rest[:, 4:].amax(0)
        unit = (0.5 * (high - low).amax()).clamp_min(1e-6 * splines.timing.spacing).reshape(1)
        tensors: dict[str, Any] = {
            **{name: getattr(splines, name) for name in Nodes.BUFFERS},
            "homes": (rest[:, 4:] - 0.5 * (low + high)) / unit, "unit": unit,
            "origins": rest.clone(),
        }  # fmt: skip
        nodes = cls(tensors, splines.timing)
        nodes.network.reset(generator)
        nodes._fit(splines, generator, steps)
        return nodes

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """All of the network."""
        return {"network": list(self.network.parameters())}

    def poses(self, times: Float[Tensor, " times"]) -> Float[Tensor, "times nodes 7"]:
        """Poses in the world at ``times``, seconds."""
        count, nodes = len(times), len(self)
        when = self._share(times).reshape(count, 1, 1).expand(count, nodes, 1)
        where = self.homes.expand(count, nodes, 3)
        return self._posed(when, where, self.origins.expand(count, nodes, 7))

    def _share(self, times: Float[Tensor, " times"]) -> Float[Tensor, " times"]:
        """-1 when the motion begins, 1 when it ends."""
        timing = self.timing
        elapsed = (times.to(self.homes) - timing.start_s).clamp(0.0, timing.duration_s)
        return 2.0 * elapsed / max(timing.duration_s, 1e-9) - 1.0

    def _posed(
        self,
        when: Float[Tensor, "*rows 1"],
        where: Float[Tensor, "*rows 3"],
        origins: Float[Tensor, "*rows 7"],
    ) -> Float[Tensor, "*rows 7"]:
        told = self.network(when, where)
        turn = torch.cat([1.0 + told[..., :1], told[..., 1:4]], dim=-1)
        turn = quat_product(nn.functional.normalize(turn, dim=-1), origins[..., :4])
        return torch.cat([turn, origins[..., 4:] + self.unit * told[..., 4:]], dim=-1)

    def _fit(self, splines: SplineNodes, generator: torch.Generator, steps: int) -> None:
        times = self._moments(_FITTED_PER_KNOT)
        with torch.no_grad():
            wanted = splines.poses(times)
        when = self._share(times)[:, None, None].expand(len(times), len(self), 1)
        where, origins = self.homes.expand_as(wanted[..., :3]), self.origins.expand_as(wanted)
        rows = [each.reshape(-1, each.shape[-1]) for each in (when, where, origins, wanted)]
        optimiser = torch.optim.Adam(self.network.parameters(), lr=_RATE)
        falls = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps), 0.01 * _RATE)
        for _ in range(steps):
            some = torch.randint(len(rows[0]), (_BATCH,), generator=generator)
            a, b, c, target = (each[some] for each in rows)
            found = self._posed(a, b, c)
            off = (found[:, 4:] - target[:, 4:]) / self.timing.spacing
            side = (found[:, :4] * target[:, :4]).sum(-1, keepdim=True).detach().sign()
            turned = found[:, :4] - side * target[:, :4]
            loss = off.square().sum(-1).mean() + turned.square().sum(-1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            falls.step()

    def _moments(self, per_knot: int = _PER_KNOT) -> Float[Tensor, " times"]:
        """Seconds, several between two knots."""
        timing = self.timing
        count = per_knot * (timing.num_knots - 3) + 1
        return self.homes.new_tensor(timing.start_s) + torch.linspace(
            0.0, timing.duration_s, count, device=self.homes.device
        )

    @torch.no_grad()
    def motion_knots(self) -> Float[Tensor, "nodes knots 7"]:
        """Knots of splines that go as near as they can by what the network says."""
        times = self._moments()
        motions = self.motions(times)
        values = torch.cat([continuous(motions[..., :4]), motions[..., 4:]], dim=-1)
        values = values.transpose(0, 1)
        knots = fitted_knots(
            values, torch.ones(values.shape[:2]), self.timing.at(times), self.timing.num_knots
        )
        turns = nn.functional.normalize(knots[..., :4], dim=-1)
        return torch.cat([turns, knots[..., 4:]], dim=-1)

    @torch.no_grad()
    def knots_error(self) -> tuple[float, float]:
        """How far nodes are off where splines with :meth:`motion_knots` say: half of them at most,
        and all, scene units."""
        times = self._moments(2 * _PER_KNOT + 1)
        back = pose_product(
            spline_poses(self.motion_knots(), self.timing.at(times)),
            self.rest.expand(len(times), len(self), 7),
        )
        off = (back - self.poses(times))[..., 4:].norm(dim=-1)
        return float(off.median()), float(off.max())


class _Network(nn.Module):
    """7 numbers of a time and a place: changes of a quaternion and of a place."""

    def __init__(self) -> None:
        super().__init__()
        inputs = 4 + 2 * (3 * PLACE_BANDS + TIME_BANDS)
        self.layers = nn.ModuleList(
            nn.Linear(inputs if k == 0 else WIDTH + inputs * (k == SKIP), WIDTH)
            for k in range(LAYERS)
        )
        self.last = nn.Linear(WIDTH, 7)

    def reset(self, generator: torch.Generator) -> None:
        """Weights by He et al. (2015), those of the last layer small: at first nothing moves."""
        for layer in [*self.layers, self.last]:
            assert isinstance(layer, nn.Linear)
            gain = 1e-2 if layer is self.last else 1.0
            spread = gain * (2.0 / layer.in_features) ** 0.5
            with torch.no_grad():
                layer.weight.normal_(0.0, spread, generator=generator)
                layer.bias.zero_()

    def forward(
        self, when: Float[Tensor, "*rows 1"], where: Float[Tensor, "*rows 3"]
    ) -> Float[Tensor, "*rows 7"]:
        inputs = torch.cat([_waves(when, TIME_BANDS), _waves(where, PLACE_BANDS)], dim=-1)
        hidden = inputs
        for k, layer in enumerate(self.layers):
            if k == SKIP:
                hidden = torch.cat([hidden, inputs], dim=-1)
            hidden = layer(hidden).relu()
        return self.last(hidden)


def _waves(values: Float[Tensor, "*rows n"], bands: int) -> Float[Tensor, "*rows more"]:
    """The values, and sines and cosines of them, an octave a band."""
    factors = torch.pi * 2.0 ** torch.arange(bands, device=values.device)
    angles = (values[..., None] * factors.to(values)).flatten(-2)
    return torch.cat([values, angles.sin(), angles.cos()], dim=-1)
