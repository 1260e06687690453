"""The network from words to planes."""

import pytest
import torch

from scene4d.errors import UsageError
from scene4d.methods.text_mesh.planes_network import PlanesNetwork, PlanesShape


def network(plan=("c", "t"), **sizes) -> PlanesNetwork:
    made = PlanesNetwork(PlanesShape(words=8, channels=32, plan=plan, features=4, **sizes))
    made.reset(torch.Generator().manual_seed(0))
    return made


@pytest.mark.parametrize(("plan", "first", "size"), [(("c", "t"), 4, 16), (("t",), 3, 6),
                                                     (("cc", "c", "c"), 2, 16)])  # fmt: skip
def test_planes_are_twice_the_last_stage(plan, first, size) -> None:
    made = network(plan, first=first)
    assert made.shape.size == size
    assert made(torch.randn(3, 8)).shape == (3, 4, size, size)


def trained(made: PlanesNetwork) -> PlanesNetwork:
    """With all weights away from the zeros that blocks begin with."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return made


@pytest.mark.parametrize("plan", [("c",), ("t",)])
def test_all_weights_learn_from_all_planes(plan) -> None:
    made = trained(network(plan))
    made(torch.randn(3, 8, generator=torch.Generator().manual_seed(2))).square().sum().backward()
    silent = [n for n, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # What attention adds to all keys alike changes no softmax.
    assert [n for n in silent if not n.endswith(("keys.bias", "words.bias"))] == []


def test_attention_carries_from_one_plane_to_another_and_convolutions_do_not() -> None:
    for plan, reaches in (("c", False), ("t", True)):
        made = trained(network((plan,)))
        words = torch.randn(3, 8, generator=torch.Generator().manual_seed(2))
        before = made(words)
        with torch.no_grad():
            made.start[0] += torch.randn(made.start[0].shape)
        assert torch.allclose(made(words)[1], before[1], atol=1e-6) != reaches


def test_the_order_of_words_does_not_count() -> None:
    """As they are a set: what a language model gives has its order inside."""
    made = trained(network())
    words = torch.randn(3, 8, generator=torch.Generator().manual_seed(2))
    # Sums in another order, float32.
    torch.testing.assert_close(made(words), made(words.flip(0)), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(made(words), made(2 * words))


@pytest.mark.parametrize(
    ("sizes", "told"),
    [({"plan": ()}, "plan"), ({"plan": ("cx",)}, "plan"), ({"plan": ("c", "")}, "plan"),
     ({"channels": 40}, "multiple"), ({"plan": ("c",) * 8}, "stages")],
)  # fmt: skip
def test_sizes_that_cannot_be(sizes, told) -> None:
    with pytest.raises(UsageError, match=told):
        PlanesShape(words=8, **sizes)
