"""One training in several processes, each of which renders a part of every step.

All of them draw the same step from the same random numbers. Each renders its part of the pictures,
crops or rays and is given what the others rendered, so that each has the loss of the whole step,
the same number in all. Gradients flow through a process's own part alone, multiplied by the number
of processes, and those of parameters are averaged: over the parts that is their sum, and what comes
from a term that renders nothing is the same in all. So every process takes the step that one alone
would take, up to the order of sums.

Only the first process writes and talks.
"""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from scene4d.cameras.camera import Camera
from scene4d.errors import Scene4dError, UsageError
from scene4d.rendering.render import Render, merged
from scene4d.representations.base import Trainable
from scene4d.representations.method import Method, resolve
from scene4d.representations.task import Task
from scene4d.torchrun import Place, this_process

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")
_LONGEST_WAIT = timedelta(days=1)
"""For the others: the first one may be paused in the viewer. One that ends is noticed at once."""
_SAME_ERROR = timedelta(seconds=2)
"""A mistake of the user's shows in all processes within this time, and the first one tells it."""
_BUCKET = 1 << 24
"""Most gradients that are averaged at a time."""
_training_numbers = itertools.count()


class Processes:
    """The only process of a training: every part is the whole."""

    number = 0
    count = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and talks."""
        return self.number == 0

    def rows(self, total: int, what: str) -> slice:
        """Those of ``total`` things that are this process's: as many as every other's. Raises
        :class:`UsageError`, which calls them ``what``, where they cannot be shared evenly."""
        return slice(0, total)

    def gathered(self, part: Float[Tensor, "part ..."]) -> Float[Tensor, "all ..."]:
        """The rows of all processes in order, of this one's ``part``; differentiable."""
        return part

    def batch(self, camera: Camera, render: Callable[[Camera], Render]) -> Render:
        """The render of a batch of cameras, of which each process makes a part; ``extras`` are that
        part's. That of a single camera every process makes."""
        return render(camera)

    def pictures(self, views: Sequence[T], render: Callable[[T], Render]) -> list[Render]:
        """Renders of whole pictures of one size, each of which one process makes; they have no
        ``extras`` where others made some."""
        return [render(view) for view in views]

    def mean(self, value: float) -> float:
        """Over all processes."""
        return value

    def average(self, parameters: Sequence[Tensor]) -> None:
        """Makes of gradients their means over all processes; where only some processes have one, it
        counts as 0 in the others."""

    def alike(self, tensors: Iterable[Tensor]) -> None:
        """Makes tensors in all processes what they are in the first one; in place."""

    def told(self, say: Callable[[], str]) -> str:
        """What the first process says, which is the only one to call ``say``."""
        return say()

    def agreed(self, progress: float, stopped_by: str | None) -> tuple[float, str | None]:
        """The first process's progress, and the name of the signal that stopped any of them."""
        return progress, stopped_by

    def check(self, method: Method, trainable: Trainable, task: Task) -> None:
        """Raises :class:`UsageError` for a training whose steps cannot be shared."""


ALONE = Processes()


class _Several(Processes):
    """One of several processes."""

    def __init__(self, number: int, count: int) -> None:
        self.number, self.count = number, count

    def rows(self, total: int, what: str) -> slice:
        if total % self.count:
            raise UsageError(
                f"{total} {what} a step cannot be shared evenly by {self.count} processes",
                fix=f"give a multiple of {self.count}",
            )
        share = total // self.count
        return slice(share * self.number, share * (self.number + 1))

    def gathered(self, part: Float[Tensor, "part ..."]) -> Float[Tensor, "all ..."]:
        if torch.is_grad_enabled() and not part.requires_grad:
            part = part.detach().requires_grad_()  # others' may be differentiable
        whole: Tensor = _Gathered.apply(part, self.number, self.count)
        return whole

    def batch(self, camera: Camera, render: Callable[[Camera], Render]) -> Render:
        if camera.c2w.ndim == 2:
            return render(camera)
        part = render(camera.chosen(self.rows(len(camera.c2w), "crops or rays")))
        return merged([part], lambda maps: self.gathered(maps[0]), extras=part.extras)

    def pictures(self, views: Sequence[T], render: Callable[[T], Render]) -> list[Render]:
        own = [render(view) for view in views[self.rows(len(views), "pictures")]]
        whole = merged(own, lambda maps: self.gathered(torch.stack(maps)))
        return [whole.picture(i) for i in range(len(views))]

    def mean(self, value: float) -> float:
        total = torch.tensor([value], dtype=torch.float64)
        with _losing_nobody():
            dist.all_reduce(total)
        return float(total) / self.count

    def average(self, parameters: Sequence[Tensor]) -> None:
        there = torch.tensor([int(p.grad is not None) for p in parameters])
        with _losing_nobody():
            dist.all_reduce(there, dist.ReduceOp.MAX)
        found = [p for p, has in zip(parameters, there.tolist(), strict=True) if has]
        for parameter in found:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets(found):
            gradients = [p.grad for p in bucket if p.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            with _losing_nobody():
                dist.all_reduce(flat)
            flat /= self.count
            for gradient, mean in zip(
                gradients, flat.split([g.numel() for g in gradients]), strict=True
            ):
                gradient.copy_(mean.view_as(gradient))

    @torch.no_grad()
    def alike(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            data = tensor.detach().contiguous().flatten()
            with _losing_nobody():
                dist.broadcast(data.view(torch.uint8), 0)
            tensor.copy_(data.view_as(tensor))

    def told(self, say: Callable[[], str]) -> str:
        data = bytearray(say().encode() if self.first else b"")
        length = torch.tensor([len(data)])
        self.alike([length])
        text = torch.tensor(list(data) or [0] * int(length), dtype=torch.uint8)
        self.alike([text])
        return bytes(text.tolist()).decode()

    def agreed(self, progress: float, stopped_by: str | None) -> tuple[float, str | None]:
        number = 0 if stopped_by is None else signal.Signals[stopped_by].value
        said = torch.tensor([progress if self.first else -1.0, number], dtype=torch.float64)
        with _losing_nobody():
            dist.all_reduce(said, dist.ReduceOp.MAX)
        number = int(said[1])
        return float(said[0]), signal.Signals(number).name if number else None

    def check(self, method: Method, trainable: Trainable, task: Task) -> None:
        where = f"the method {method.name!r} in {self.count} processes"
        alone = "start it without torchrun"
        if resolve(method.strategy_options().implementation).watches_renders():
            raise UsageError(
                "primitives come and go by the gradients of renders, of which a process has a part",
                where=where, fix=f"{alone}, or choose a strategy that does not look at renders",
            )  # fmt: skip
        if any(isinstance(module, _BatchNorm) for module in trainable.modules()):
            raise UsageError(
                "its network normalises by a batch's statistics, and a process has a part of it",
                where=where, fix=alone,
            )  # fmt: skip
        terms = [resolve(term.implementation) for term in method.terms() if term.weight != 0]
        if not any(term.needs_views for term in terms):
            return
        sampling = trainable.sampling
        if sampling.of != "images":
            self.rows(sampling.count, sampling.of)
            return
        self.rows(method.batch_size, "photographs (--batch-size)")
        if len({(c.width, c.height) for c in task.training_cameras}) > 1:
            raise UsageError("whole photographs of several sizes cannot be shared", where=where,
                             fix=alone)  # fmt: skip


class _Gathered(torch.autograd.Function):
    """The rows of all processes; the gradient of one's own, times the number of processes."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, number: int, count: int) -> Tensor:
        ctx.place = number, count, len(part)
        parts = [
            torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(count)
        ]
        with _losing_nobody():
            dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        number, count, length = ctx.place
        return count * gradient[number * length : (number + 1) * length], None, None


def _buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """In order, each of one type on one device."""
    bucket: list[Tensor] = []
    for parameter in parameters:
        kind = (parameter.dtype, parameter.device)
        size = parameter.numel() + sum(p.numel() for p in bucket)
        if bucket and (size > _BUCKET or kind != (bucket[0].dtype, bucket[0].device)):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


class ProcessLost(Scene4dError):
    """Another process of the training has ended."""


@contextmanager
def _losing_nobody() -> Iterator[None]:
    """Raises :class:`ProcessLost` where another process does not answer any more."""
    try:
        yield
    except RuntimeError as error:  # what gloo and NCCL raise
        raise ProcessLost(
            "another process of this training ended",
            fix="see what it said; scene4d train --resume RUN goes on from the last checkpoint",
        ) from error


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that train together: those that torchrun started, or this one alone.

    Nobody leaves before all have come to the end. An error of a process other than the first is
    printed unless the first one has it, too; whoever waits for a process that ended gets
    :class:`ProcessLost`.
    """
    here = this_process()
    if here.count == 1:
        yield ALONE
        return
    from torch.distributed.distributed_c10d import PrefixStore  # late: a torch may lack it

    if dist.is_initialized():
        raise UsageError(
            "torch.distributed is in use already, by the program that called",
            fix="let scene4d join the processes itself, or start the program without torchrun",
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(here.local_number)
    store = PrefixStore(f"training{next(_training_numbers)}", _store())
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=store, rank=here.number, world_size=here.count, timeout=_LONGEST_WAIT,
    )  # fmt: skip
    try:
        yield _Several(here.number, here.count)
        with _losing_nobody():
            dist.barrier()
    except (Scene4dError, OSError) as error:
        if not isinstance(error, ProcessLost):
            _tell(error, here, store)
        raise
    finally:
        with suppress(RuntimeError):
            dist.destroy_process_group()


@cache
def _store() -> Store:
    """What the processes find each other by; one for all trainings of this process."""
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://"))
    return store


def _tell(error: Exception, here: Place, store: Store) -> None:
    """Prints the error, unless the first process has it, too: its caller does."""
    if here.first:
        store.set("failed", "")
        return
    try:
        store.wait(["failed"], _SAME_ERROR)
    except RuntimeError:
        print(f"process {here.number} of {here.count}: error: {error}", file=sys.stderr)
