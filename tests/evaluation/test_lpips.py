import numpy as np
import pytest
import torch

from scene4d.errors import DataError
from scene4d.evaluation.lpips import lpips, shipped_weights


@pytest.fixture(scope="module")
def picture():
    """A smooth picture with edges; pure noise is far from what the network knows."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 80), indexing="ij")
    disc = ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.08).float()
    return torch.stack([x, 0.7 * disc + 0.2 * y, 1 - y], dim=-1)


def noisy(picture, sigma):
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(1))
    return (picture + sigma * noise).clamp(0, 1)


def test_identical_pictures_have_distance_zero(picture):
    assert lpips(picture, picture) == 0


def test_is_symmetric(picture):
    other = noisy(picture, 0.2)
    # float32 sums of the same squared differences
    torch.testing.assert_close(lpips(picture, other), lpips(other, picture), rtol=1e-6, atol=0)


def test_more_noise_is_farther(picture):
    distances = [float(lpips(noisy(picture, sigma), picture)) for sigma in (0.02, 0.1, 0.3)]
    assert 0 < distances[0] < distances[1] < distances[2]


def test_a_batch_is_its_images(picture):
    pictures = torch.stack([noisy(picture, 0.1), noisy(picture, 0.3)])
    targets = torch.stack([picture, picture])
    single = torch.stack([lpips(p, t) for p, t in zip(pictures, targets, strict=True)])
    # convolutions of a batch may sum in another order
    torch.testing.assert_close(lpips(pictures, targets), single, rtol=1e-4, atol=1e-6)


def test_gradient_is_finite_also_for_black(picture):
    pred = torch.zeros_like(picture, requires_grad=True)
    lpips(pred, picture).backward()
    assert torch.isfinite(pred.grad).all() and pred.grad.abs().max() > 0


def test_takes_a_step_downhill(picture):
    pred = noisy(picture, 0.2).requires_grad_()
    before = lpips(pred, picture)
    before.backward()
    step = 1e-2 * pred.grad / pred.grad.norm()
    assert lpips(pred.detach() - step, picture) < before


@pytest.mark.parametrize("size", [(31, 100), (100, 31), (1, 1)])
def test_too_small_is_refused(size):
    image = torch.zeros(*size, 3)
    with pytest.raises(DataError, match="32x32"):
        lpips(image, image)


def test_smallest_size_works():
    value = lpips(torch.zeros(32, 32, 3), torch.ones(32, 32, 3))
    assert value > 0


@pytest.fixture(scope="module")
def full_precision(shared_data):
    with np.load(shared_data / "pretrained" / "lpips_alex.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def test_half_precision_weights_change_little(picture, full_precision, shared_data):
    from PIL import Image

    chair = sorted((shared_data / "nerf_chair").rglob("*.png"))[:2]
    photos = [
        torch.from_numpy(np.array(Image.open(path).convert("RGB"))).float() / 255 for path in chair
    ]
    pairs = [
        (noisy(picture, 0.1), picture),
        (photos[0], photos[1]),
        (noisy(photos[0], 0.05), photos[0]),
    ]
    for a, b in pairs:
        exact, shipped = lpips(a, b, weights=full_precision), lpips(a, b)
        # float16 keeps 11 bits: 5e-4 per weight, averaged over thousands of weights
        torch.testing.assert_close(shipped, exact, rtol=1e-3, atol=0)


def test_shipped_weights_are_the_rounded_ones(full_precision):
    shipped = shipped_weights("cpu")
    assert shipped.keys() == full_precision.keys()
    for name, exact in full_precision.items():
        assert torch.equal(shipped[name], exact.half().float())


def numpy_lpips(a, b, weights):
    """Independent of torch.nn.functional: convolutions as explicit sums over kernel offsets."""

    def conv(x, w, bias, stride, pad):
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        k = w.shape[-1]
        h, v = ((n - k) // stride + 1 for n in x.shape[1:])
        out = np.zeros((w.shape[0], h, v))
        for i in range(k):
            for j in range(k):
                patch = x[:, i : i + stride * h : stride, j : j + stride * v : stride]
                out += np.tensordot(w[:, :, i, j], patch, axes=1)
        return np.maximum(out + bias[:, None, None], 0)

    def pool(x):
        h, v = ((n - 3) // 2 + 1 for n in x.shape[1:])
        views = [x[:, i : i + 2 * h : 2, j : j + 2 * v : 2] for i in range(3) for j in range(3)]
        return np.max(views, axis=0)

    def features(x):
        x = 2 * x.astype(np.float64).transpose(2, 0, 1) - 1
        x = (x - np.array([[[-0.030]], [[-0.088]], [[-0.188]]])) / np.array(
            [[[0.458]], [[0.448]], [[0.450]]]
        )
        for name, stride, pad in (("0", 4, 2), ("3", 1, 2), ("6", 1, 1), ("8", 1, 1), ("10", 1, 1)):
            x = pool(x) if name in ("3", "6") else x
            x = conv(
                x, weights[f"features.{name}.weight"], weights[f"features.{name}.bias"], stride, pad
            )
            yield x / (np.sqrt((x**2).sum(0)) + 1e-10)

    return sum(
        (weights[f"lin{i}.weight"][0] * (f - g) ** 2).sum(0).mean()
        for i, (f, g) in enumerate(zip(features(a), features(b), strict=True))
    )


def test_equals_an_independent_computation(picture):
    weights = {name: tensor.double().numpy() for name, tensor in shipped_weights("cpu").items()}
    other = noisy(picture, 0.1)
    expected = numpy_lpips(other.numpy(), picture.numpy(), weights)
    # float32 against float64 through five layers
    assert float(lpips(other, picture)) == pytest.approx(expected, rel=1e-4)
