"""The computations of a light slab's models, once, for every runtime that writes or traces them.

What differs between runtimes (how a tensor lies, how a table is read) is behind :class:`Layers` and
:class:`Pixels`; values are whatever a runtime calls a tensor: a name, a number, or the tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from scene4d.methods.lightslab.decoder import HALO, RING, DecoderShape
from scene4d.methods.lightslab.runtimes.tables import MpiTables

V = TypeVar("V")


class Layers(Protocol[V]):
    """What the decoder is made of; layers are named as in a bundle."""

    def convolved(self, x: V, layer: str, *, relu: bool = False) -> V:
        """Without padding, at the layer's stride."""

    def upsampled(self, x: V, layer: str) -> V:
        """Convolved; then its channel 4 c + 2 y + x becomes channel c of the pixel (y, x)."""

    def relu(self, x: V) -> V:
        """At least 0."""

    def add(self, a: V, b: V) -> V:
        """The sum."""

    def joined(self, a: V, b: V) -> V:
        """The channels of both."""

    def inner(self, x: V, ring: int) -> V:
        """Without the outermost ``ring`` rows and columns."""


def decoded(net: Layers[V], features: V, shape: DecoderShape) -> V:
    """Features of the samples to red, green, blue, alpha and z of the pixels, without sigmoids."""
    encoded = net.convolved(features, "encode", relu=True)
    x = net.convolved(encoded, "first")
    for i in range(shape.blocks):
        inside = net.convolved(net.relu(x), f"block_{i}_0", relu=True)
        x = net.add(x, net.convolved(inside, f"block_{i}_1"))
    x = net.upsampled(net.relu(x), "last")
    for step in range(len(shape.channels)):
        x = net.relu(x)
        if step == shape.skip:
            x = net.joined(x, net.inner(encoded, shape.samples * HALO - RING))
        x = net.upsampled(x, f"sharpen_{step}")
    return net.inner(x, RING)


class Pixels(Protocol[V]):
    """What the planes' composite is made of. A value of a ray is one of each layer and pixel; how
    colours lie beside these is the runtime's affair."""

    def add(self, a: V, b: V) -> V:
        """The sum."""

    def sub(self, a: V, b: V) -> V:
        """The difference."""

    def mul(self, a: V, b: V) -> V:
        """The product; of colours with alphas, of every channel."""

    def div(self, a: V, b: V) -> V:
        """The quotient."""

    def sqrt(self, x: V) -> V:
        """The root."""

    def relu(self, x: V) -> V:
        """At least 0."""

    def clamped(self, x: V, low: float, high: float | None) -> V:
        """Between both, or at least ``low``."""

    def number(self, value: float) -> V:
        """A constant."""

    def of_slab(self, name: str, column: int) -> V:
        """What ``MpiTables.column`` gives of each slab: that of each ray's."""

    def texels(self, x: V, y: V, plane: int) -> V:
        """Colour (multiplied by alpha) and alpha of the plane's image at (x, y), in blocks."""

    def alpha(self, colours: V) -> V:
        """The last channel, lying as colours do."""

    def as_ray(self, alpha: V) -> V:
        """The same, lying as rays' values do."""

    def over_layers(self, colours: V) -> V:
        """The layers' sum, each as much as its slab counts."""

    def rays_over_layers(self, values: V) -> V:
        """The same of values of rays, lying as alphas of that sum do."""


def composited(net: Pixels[V], rays: Sequence[V], tables: MpiTables) -> tuple[V, V]:
    """The planes from front to back: premultiplied colour and alpha, and the distance along the
    ray, 0 where nothing is seen. ``rays``: see ``models.pixel_rays``."""
    right, down, pass_right, pass_down, start = rays[:5]
    one = net.number(1.0)
    left: V | None = None
    colours: V | None = None
    depth: V | None = None
    for plane in reversed(range(tables.disparities.shape[1])):
        disparity = net.of_slab("disparities", plane)
        x, y = (
            _in_blocks(net, net.add(tangent, net.mul(passing, disparity)), tables, plane, axis)
            for axis, (tangent, passing) in enumerate(((right, pass_right), (down, pass_down)))
        )
        part = net.texels(x, y, plane)
        part = part if left is None else net.mul(part, left)
        alpha = net.alpha(part)
        left = net.sub(one if left is None else left, alpha)
        far = net.div(net.as_ray(alpha), disparity)
        colours = part if colours is None else net.add(colours, part)
        depth = far if depth is None else net.add(depth, far)
    assert colours is not None and depth is not None, "a slab has two planes or more"
    total = net.over_layers(colours)
    slope = net.sqrt(net.add(net.add(net.mul(right, right), net.mul(down, down)), one))
    behind = net.mul(net.as_ray(net.alpha(colours)), start)  # from the origin, not the viewpoint
    along = net.rays_over_layers(net.mul(net.sub(depth, behind), slope))
    seen = net.clamped(net.alpha(total), 1e-6, None)
    return total, net.relu(net.div(along, seen))


def _in_blocks(net: Pixels[V], point: V, tables: MpiTables, plane: int, axis: int) -> V:
    """Where a point in perspective is on the plane's image."""
    within = net.sub(point, net.of_slab("low", 2 * plane + axis))
    place = net.mul(within, net.of_slab("blocks", 2 * plane + axis))
    return net.clamped(place, 0.0, tables.last[axis])
