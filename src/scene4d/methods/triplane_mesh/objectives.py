"""What makes a surface of distances on planes: terms of the loss that no photograph gives."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.methods.triplane_mesh.method import EikonalOptions
from scene4d.methods.triplane_mesh.triplane_mesh import TriplaneMesh
from scene4d.rendering.isosurface.flexicubes import sign_changes
from scene4d.representations.triplane_field import FieldSurface, TriplaneField
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term, mean
from scene4d.training.step import Step

_TRIED = 8
"""Places that are asked without gradients for each one that is near the surface."""
_TETRAHEDRON = ((1.0, -1.0, -1.0), (-1.0, -1.0, 1.0), (-1.0, 1.0, -1.0), (1.0, 1.0, 1.0))


class Eikonal(Objective):
    """Mean square of |gradient of the distance| - 1, by differences over a texel: bilinear planes
    have no second derivatives (numerical gradients as in Neuralangelo, Li et al. 2023)."""

    options: EikonalOptions
    needs_views = False

    def __init__(self, options: EikonalOptions, inputs: ObjectiveInputs) -> None:
        super().__init__(options, inputs)
        self.generator, self.device = inputs.generator, inputs.device

    def __call__(self, step: Step) -> Term:
        """0: a distance function."""
        shown = step.representation
        assert isinstance(shown, TriplaneMesh)
        count = -(-self.options.points // 2)
        places = 2 * torch.rand(_TRIED * count, 3, generator=self.generator) - 1
        places = places.to(self.device)
        with torch.no_grad():
            near = shown.field.distance(places).abs().topk(count, largest=False).indices
        places = torch.cat([places[:count], places[near]])
        finest = max(shown.settings.shape.resolutions)
        lengths = slopes(shown.field, places, 1 / finest).norm(dim=1)
        loss = (lengths - 1).square().mean()
        return Term(loss=loss, log={"eikonal": loss})


def slopes(
    field: TriplaneField, places: Float[Tensor, "n 3"], reach: float
) -> Float[Tensor, "n 3"]:
    """The gradient of the distance, by differences between the corners of a tetrahedron that lie
    ``reach`` away along each axis; differentiable."""
    corners = places.new_tensor(_TETRAHEDRON)
    at = (places[:, None] + reach * corners).reshape(-1, 3)
    return field.distance(at).reshape(-1, 4) @ corners / (4 * reach)


def surfaces_of(step: Step) -> list[FieldSurface]:
    """The meshes that this step's renders show."""
    found = (shot.render.extras.get("surface") for shot in step.shots)
    return [surface for surface in found if surface is not None]


class EvenFaces(Objective):
    """L_dev of FlexiCubes in edges of a cube; nothing while there is no mesh."""

    needs_views = False

    def __call__(self, step: Step) -> Term:
        """The mean over vertices."""
        terms = [
            s.mesh.deviations.mean() * (len(s.sdf) - 1) / 2
            for s in surfaces_of(step)
            if len(s.mesh.deviations)
        ]
        return _term("even_faces", terms, step)


class FewSigns(Objective):
    """See :func:`sign_changes`; nothing while there is no mesh."""

    needs_views = False

    def __call__(self, step: Step) -> Term:
        """In nats."""
        return _term("few_signs", [sign_changes(s.sdf) for s in surfaces_of(step)], step)


def _term(name: str, terms: list[Tensor], step: Step) -> Term:
    loss = mean(terms) if terms else step.background.new_zeros(())
    return Term(loss=loss, log={name: loss})
