"""The smoothness objective of textured meshes."""

from __future__ import annotations

from scene4d.methods.mesh.method import SmoothnessOptions
from scene4d.methods.mesh.textured_mesh import TexturedMesh
from scene4d.training.objectives.base import Objective, Term
from scene4d.training.step import Step


class Smoothness(Objective):
    """Mean squared difference of the moves of an edge's two ends, in mean lengths of edges."""

    options: SmoothnessOptions
    needs_views = False

    def __call__(self, step: Step) -> Term:
        """A move of all vertices together costs nothing."""
        mesh = step.representation
        assert isinstance(mesh, TexturedMesh)
        moves = (mesh.vertices - mesh.first_vertices) / mesh.edge_length
        first, second = mesh.edge_ends
        loss = (moves[first] - moves[second]).square().sum(-1).mean()
        return Term(loss=loss, log={"smoothness": loss})
