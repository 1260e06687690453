"""Splats that each have a polynomial of time of their own: what ``.4dgs`` and ``.splatv`` store."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scene4d.formats.moving_splats import quat_product
from scene4d.formats.splat_cloud import SplatCloud, held, quat_of, split_similarity


@dataclass(frozen=True, kw_only=True, eq=False)
class TimedSplats:
    """N Gaussians, each around a time of its own; arrays in float64 unless the cloud has them."""

    cloud: SplatCloud
    """Each Gaussian as it is at its centre in time, its opacity at its best."""
    motion: np.ndarray
    """[N, D, 3] what is added to its mean per (t - centre)^1 .. ^D, units and seconds."""
    turns: np.ndarray
    """[N, 4] what is added to its quaternion a second, before that is made of unit length."""
    centres_s: np.ndarray
    """[N]"""
    fades_s: np.ndarray
    """[N] s of exp(-((t - centre) / s)^2), which the opacity is times; infinite: does not fade."""
    windows_s: np.ndarray
    """[N, 2] seconds: it is there from the first on until before the second."""

    def __len__(self) -> int:
        return len(self.cloud)

    def at(self, time_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which Gaussians are there at ``time_s``, [n]; their means [n, 3] and quaternions [n, 4],
        wxyz of any length."""
        low, high = self.windows_s.T
        there = ((low <= time_s) & (time_s < high)).nonzero()[0]
        off = (time_s - self.centres_s[there])[:, None]
        powers = off ** np.arange(1, self.motion.shape[1] + 1)
        means = self.cloud.means[there] + np.einsum("nd,ndc->nc", powers, self.motion[there])
        return there, means, self.cloud.quats[there] + off * self.turns[there]

    def transformed(self, similarity: np.ndarray) -> TimedSplats:
        """The same after ``similarity`` [4, 4]: rotation, uniform scale, translation."""
        scale, rotation, _ = split_similarity(similarity)
        return replace(
            self,
            cloud=self.cloud.transformed(similarity),
            motion=self.motion @ (scale * rotation).T,
            turns=quat_product(quat_of(rotation), self.turns),
        )


def joined(parts: list[TimedSplats]) -> TimedSplats:
    """All of them in one, in their order."""
    clouds = [part.cloud for part in parts]
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("motion", "turns", "centres_s", "fades_s", "windows_s")
    }
    whole = {
        name: np.concatenate([getattr(cloud, name) for cloud in clouds])
        for name in ("quats", "log_scales", "logit_opacities", "sh")
    }
    means = np.concatenate([cloud.means.astype(np.float64) for cloud in clouds])
    cloud = SplatCloud(
        means=held(means, whole["log_scales"]), **whole, antialiased=clouds[0].antialiased
    )
    return TimedSplats(cloud=cloud, **arrays)
