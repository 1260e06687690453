import torch

from scene4d.cameras.quaternions import rotation_from_quat


def test_rotation_matrices_are_rotations_and_agree_with_axis_angle():
    quats = torch.randn(20, 4, dtype=torch.float64)
    rotations = rotation_from_quat(quats)
    identity = torch.eye(3, dtype=torch.float64).expand(20, 3, 3)
    torch.testing.assert_close(rotations @ rotations.transpose(-1, -2), identity)
    quarter_about_z = torch.tensor([[2**-0.5, 0.0, 0.0, 2**-0.5]], dtype=torch.float64)
    turned = rotation_from_quat(quarter_about_z)[0] @ torch.tensor([1.0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(turned, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))


def test_the_length_of_a_quaternion_does_not_matter_and_zero_turns_nothing():
    quat = torch.tensor([0.3, -0.5, 0.1, 0.8])
    unit = rotation_from_quat(quat)
    for length in (1e-14, 1e14):
        # float32: the squares of 1e-14 and 1e14 are still in range.
        torch.testing.assert_close(rotation_from_quat(quat * length), unit, rtol=0, atol=1e-6)
    assert torch.equal(rotation_from_quat(torch.zeros(4)), torch.eye(3))


def test_gradient():
    quats = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotation_from_quat, quats)
