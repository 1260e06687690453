"""The named score losses. x_t = alpha x + sigma n; e* = the guided noise e_0 + k (e_y - e_0)."""

from __future__ import annotations

from dataclasses import replace

from scene4d.errors import UsageError
from scene4d.priors.levels import Times
from scene4d.priors.score_loss import Divergence, Inversion, Part, ScoreLoss, guided

_ANNEALED = Times(kind="annealed")
_HIGH_NOISE = 0.2
"""NFSD splits at step 200 of 1000."""


def sds(scale: float = 1.0) -> ScoreLoss:
    """Score distillation sampling (DreamFusion, Poole et al. 2022): sigma^2 (e* - n)."""
    return ScoreLoss(name="sds", target=guided(scale))


def hifa(scale: float = 1.0) -> ScoreLoss:
    """HiFA (Zhu et al. 2023): alpha / sigma (x - x0*), t annealed; equal to e* - n."""
    return ScoreLoss(
        name="hifa", target=guided(scale), against="picture", space="x0",
        weight="alpha_over_sigma", times=_ANNEALED,
    )  # fmt: skip


def sdi(scale: float = 7.5) -> ScoreLoss:
    """Score distillation via inversion (Lukoianov et al. 2024): x - x0*(x_t), where x_t is found by
    10 steps of inversion under the guidance -k, a share of 0.3 of fresh noise and an overshoot."""
    inversion = Inversion(steps=10, mix=guided(-scale), fresh=0.3, overshoot=True)
    return ScoreLoss(
        name="sdi", noise="inverted", inversion=inversion, target=guided(scale),
        against="picture", space="x0", weight="one", times=_ANNEALED,
    )  # fmt: skip


def ism(scale: float = 7.5, *, step: float = 0.05, inversion_steps: int = 10) -> ScoreLoss:
    """Interval score matching (LucidDreamer, Liang et al. 2023): sigma / alpha (e*(x_t) - e_0(x_s))
    along one inversion, s = t - ``step``."""
    return ScoreLoss(
        name="ism", noise="inverted", inversion=Inversion(steps=inversion_steps),
        target=guided(scale), against="earlier", weight="sigma_over_alpha", step=step,
    )  # fmt: skip


def vsd(scale: float = 7.5) -> ScoreLoss:
    """Variational score distillation (ProlificDreamer, Wang et al. 2023): sigma^2 (e* - e_phi), phi
    a second prior, of what is rendered now."""
    return ScoreLoss(
        name="vsd", target=guided(scale), against="second", baseline=(Part(role="y", factor=1.0),)
    )


def dmd(scale: float = 1.0) -> ScoreLoss:
    """Distribution matching (Yin et al. 2023): VSD over the mean of |x - x0|."""
    return replace(vsd(scale), name="dmd", normaliser="residual")


def f_distill(scale: float = 1.0, *, divergence: Divergence = "jensen-shannon") -> ScoreLoss:
    """f-distill (Xu et al. 2025, theorem 1): VSD weighed by f''(r) r^2, which is small where what
    there is lies beside what the prior knows, unless ``divergence`` is the reverse KL."""
    return replace(vsd(scale), name="f-distill", divergence=divergence)


def csd(*, negative: bool = False) -> ScoreLoss:
    """Classifier score distillation (Yu et al. 2023): sigma^2 (e_y - e_0); with ``negative`` the
    factor moves from e_0 to e_neg during training, and all sum to 0."""
    target = [Part(role="y", factor=1.0)]
    if negative:
        target += [
            Part(role="none", factor=-1.0, factor_end=0.0),
            Part(role="negative", factor=0.0, factor_end=-1.0),
        ]
    else:
        target += [Part(role="none", factor=-1.0)]
    return ScoreLoss(name="csd", target=tuple(target), against="nothing")


def nfsd(scale: float = 7.5) -> ScoreLoss:
    """Noise-free score distillation (Katzir et al. 2023): e_0 - [t >= 0.2] e_neg + k (e_y - e_0),
    against nothing."""
    target = (
        *guided(scale),
        Part(role="negative", factor=-1.0, from_t=_HIGH_NOISE),
    )
    return ScoreLoss(name="nfsd", target=target, against="nothing")


def dds(scale: float = 7.5) -> ScoreLoss:
    """Delta denoising score (Hertz et al. 2023): e*(x_t, y) - e*(x^_t, y^) with one noise; the
    reference picture x^ and its condition are given."""
    return ScoreLoss(
        name="dds", target=guided(scale), against="reference", baseline=guided(scale),
        weight="one",
    )  # fmt: skip


def bridge() -> ScoreLoss:
    """The Schrödinger-bridge view (McAllister et al. 2024): e(x_t, y) - e(x_t, what there is now),
    that being a text."""
    return ScoreLoss(name="bridge", against="prior", baseline=(Part(role="now", factor=1.0),))


def asd(scale: float = 7.5, *, step: float = 0.1, low: float = 0.02) -> ScoreLoss:
    """Asynchronous score distillation (Ma et al. 2024): e*(x_t) - e_y(x_t+), the same noise at a
    later time t+ = t + U(0, ``step``) (t - ``low``), no guidance in the baseline.

    It attracts only where sigma / alpha is above the standard deviation of the data: ``low`` bounds
    the times.
    """
    return ScoreLoss(
        name="asd", target=guided(scale), against="later", baseline=(Part(role="y", factor=1.0),),
        step=step, times=Times(low=low),
    )  # fmt: skip


def prd(scale: float = 7.5, *, states: int = 4) -> ScoreLoss:
    """Progressive rendering distillation (TriplaneTurbo, Yang et al. 2025): ASD at ``states`` noise
    levels at once. One scene has one state, which all of them see; detached from each other."""
    return replace(asd(scale), name="prd", states=states)


def fixer() -> ScoreLoss:
    """x - F(x): the prior repairs the picture as it is, without noise."""
    return ScoreLoss(name="fixer", noise="none", against="picture", space="x0", weight="one")


SCALED = {
    "sds": sds, "hifa": hifa, "sdi": sdi, "ism": ism, "vsd": vsd, "dmd": dmd, "nfsd": nfsd,
    "dds": dds, "asd": asd, "prd": prd, "f-distill": f_distill,
}  # fmt: skip
"""Recipes by name that have a scale of guidance."""


def recipe(name: str, scale: float, *, negative: bool = False) -> ScoreLoss:
    """A recipe by its name. ``negative``: whether there is something that is not wanted."""
    if name in SCALED:
        return SCALED[name](scale)
    if name == "csd":
        return csd(negative=negative)
    others = {"bridge": bridge, "fixer": fixer}
    if name not in others:
        known = ", ".join(sorted([*SCALED, *others, "csd"]))
        raise UsageError(f"there is no score loss {name!r}", fix=f"choose one of: {known}")
    return others[name]()
