"""Steps that reuse the last one's answer, by diffusers' cache, in trajectories alone."""

import pytest
import torch
from optional_packages import import_or_skip

from scene4d.errors import UsageError
from scene4d.priors.families import FAMILIES
from scene4d.priors.gaussian import GaussianPrior
from scene4d.priors.prompts import Prompts
from scene4d.priors.sampling import sample
from scene4d.priors.scores import Asked, Told
from scene4d.representations.method import GuidanceOptions

pytestmark = pytest.mark.unchecked_shapes
diffusers = import_or_skip("diffusers")
WIDE = 16


def flux():
    from scene4d.priors.diffusion import DiffusionPrior

    torch.manual_seed(0)
    net = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=2, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=WIDE, pooled_projection_dim=16,
        guidance_embeds=True, axes_dims_rope=(4, 4, 8),
    ).eval().requires_grad_(False)  # fmt: skip
    texts = {name: {"embeds": torch.randn(1, 5, WIDE), "pooled": torch.randn(1, 16)}
             for name in ("", "a chair")}  # fmt: skip
    family = FAMILIES[type(net).__name__]
    return DiffusionPrior(net, family, scheduler={}, prompts=Prompts(texts))


def drawn(prior, **changes):
    found = {"shape": (1, 4, 8, 8), "steps": 5, "path": "flow", **changes}
    return sample(prior, None, generator=torch.Generator().manual_seed(0), **found)


def counted(prior):
    calls = []
    prior.network.single_transformer_blocks[-1].attn.register_forward_hook(
        lambda *_: calls.append(1)
    )
    return calls


def test_the_blocks_behind_the_first_are_asked_once_for_each_text_where_all_may_be_reused():
    prior = flux()
    plain, calls = drawn(prior), counted(prior)
    told = Told(Asked(prior=prior, texts={"y": "a chair"}), 3.0)
    drawn(told)
    assert len(calls) == 10  # two texts, five steps
    calls.clear()
    found = drawn(told, reuse=1.0)
    assert 2 <= len(calls) < 10
    calls.clear()
    drawn(told, reuse=1e-9)
    assert len(calls) == 10
    assert torch.isfinite(found).all()
    # nothing of it is left: what is asked afterwards is asked anew
    assert torch.equal(drawn(prior), plain) and not prior.network.is_cache_enabled


def test_a_trajectory_that_ends_in_an_error_leaves_nothing_behind():
    prior = flux()
    with pytest.raises(UsageError):
        drawn(Told(Asked(prior=prior, texts={"y": "a word that was not embedded"}), 1.0), reuse=0.5)
    assert not prior.network.is_cache_enabled
    assert torch.equal(drawn(prior), drawn(prior))


def test_priors_without_such_a_way_and_score_losses_say_so():
    grey = GaussianPrior(lambda condition: torch.zeros(()), 0.1)
    with pytest.raises(UsageError, match="reuses nothing from step to step"):
        drawn(grey, reuse=0.1)
    with pytest.raises(UsageError, match="draws its noise anew"):
        GuidanceOptions(reuse=0.1)
    assert GuidanceOptions(reuse=0.1, target="regenerate").reuse == 0.1
    from scene4d.priors.diffusion import DiffusionPrior

    net = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=WIDE, caption_projection_dim=16,
        pooled_projection_dim=16, out_channels=4, pos_embed_max_size=8,
    ).eval()  # fmt: skip
    other = DiffusionPrior(net, FAMILIES[type(net).__name__], scheduler={})
    with pytest.raises(UsageError, match="no first-block cache of a SD3Transformer2DModel"):
        drawn(other, reuse=0.1)
