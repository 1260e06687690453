"""The small networks of a parent/child scene: tokens, attention within a family, heads.

Source: LPGS (arXiv 2406.19434): one shared set of small MLPs reads hash-grid features and predicts
the children's places and everybody's attributes; self-attention lets a family's members see each
other. Ours adds the parent's own (coded) attributes to every token of its family.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scene4d.methods.lpgs.attention_kernels import attend, attend_backward
from scene4d.methods.lpgs.structure import Structure
from scene4d.rendering.splats.projection import empty
from scene4d.rendering.threads import KERNEL_LOCK, kernels_take

_CHILD_DISTANCE = 0.8
"""Where children start: this many standard deviations from their parent."""
_CHILD_SHRINKS = 0.5
"""Children start smaller than their parent by this much in log scale."""
_CHILD_FADES = 2.0
"""Children start fainter than their parent by this much in logit opacity."""


class FamilyNetwork(nn.Module):
    """Predicts children's offsets and corrections to attributes."""

    def __init__(self, structure: Structure, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.structure = structure
        own = 10
        inputs = own + (structure.grid.width if structure.grid is not None else 0)
        hidden, children = structure.hidden, structure.num_children
        self.token = nn.Linear(inputs, hidden)
        self.attend = nn.Linear(hidden, 3 * hidden) if structure.attention and children else None
        self.inner = nn.Linear(hidden, hidden)
        self.parent_head = nn.Linear(hidden, structure.num_outputs)
        self.child_head = nn.Linear(hidden, structure.num_outputs) if children else None
        self.place = nn.Linear(hidden, 3 * children) if children else None
        self._start(generator)

    @torch.no_grad()
    def _start(self, generator: torch.Generator | None) -> None:
        """Parents start uncorrected; children start small and faint beside their parent."""
        for parameter in self.parameters():
            if parameter.ndim == 2:
                bound = (3.0 / parameter.shape[1]) ** 0.5
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                parameter.zero_()
        self.parent_head.weight.zero_()
        if self.child_head is None or self.place is None:
            return
        self.child_head.weight.mul_(0.01)
        self.child_head.bias[:3] = -_CHILD_SHRINKS
        self.child_head.bias[6] = -_CHILD_FADES
        directions = torch.randn(self.structure.num_children, 3, generator=generator)
        directions /= directions.norm(dim=-1, keepdim=True)
        self.place.weight.mul_(0.1)
        self.place.bias.copy_((directions * _CHILD_DISTANCE).flatten())

    def tokens(
        self, own: Float[Tensor, "n 10"], features: Float[Tensor, "n f"] | None
    ) -> Float[Tensor, "n h"]:
        """Tokens from the parents' coded attributes and the grid's features at the splat."""
        inputs = own if features is None else torch.cat([own, features], dim=-1)
        return torch.relu(self.token(inputs))

    def offsets(self, parents: Float[Tensor, "p h"]) -> Float[Tensor, "p k 3"]:
        """Places of the children in their parent's axes, in standard deviations."""
        assert self.place is not None
        return self.place(parents).reshape(parents.shape[0], -1, 3)

    def attended(
        self, family: Float[Tensor, "p m h"], alive: Bool[Tensor, "p m"]
    ) -> Float[Tensor, "p m h"]:
        """Each token plus what it takes from the living members of its family."""
        if self.attend is None:
            return family
        return family + taken(self.attend(family), alive)

    def corrections(
        self, tokens: Float[Tensor, "n h"], *, child: bool
    ) -> Float[Tensor, "n outputs"]:
        """What is added to the parent's coded attributes."""
        head = self.child_head if child else self.parent_head
        assert head is not None
        return head(torch.relu(self.inner(tokens)))


def taken(
    queries: Float[Tensor, "p m three_h"], alive: Bool[Tensor, "p m"]
) -> Float[Tensor, "p m h"]:
    """What each living member of a family takes from the living: their values, weighted by the
    softmax of its query with their keys. ``queries``: queries, keys and values side by side."""
    if kernels_take(queries):
        return _Taken.apply(queries, alive)
    query, key, value = queries.chunk(3, dim=-1)
    scores = (query[:, :, None] * key[:, None]).sum(-1) * query.shape[-1] ** -0.5
    weights = scores.masked_fill(~alive[:, None], -1e9).softmax(dim=-1)
    # The dead take nothing: nobody looks at them.
    return (weights[..., None] * value[:, None]).sum(dim=2) * alive[..., None]


class _Taken(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries, alive):
        families, members, width = queries.shape
        h = width // 3
        weights = empty(families, members, members).zero_()
        out = empty(families, members, h).zero_()
        arrays = queries.detach().contiguous().numpy(), alive.contiguous().numpy()
        with KERNEL_LOCK:
            attend(*arrays, np.float32(h**-0.5), weights.numpy(), out.numpy())
        ctx.save_for_backward(queries, alive, weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        queries, alive, weights = ctx.saved_tensors
        d_queries = empty(*queries.shape).zero_()
        arrays = queries.contiguous().numpy(), alive.contiguous().numpy()
        with KERNEL_LOCK:
            attend_backward(
                *arrays, np.float32(grad.shape[-1] ** -0.5), weights.numpy(),
                grad.contiguous().numpy(), d_queries.numpy(),
            )  # fmt: skip
        return d_queries, None
