"""One capture and one training for all tests of dynamic fields."""

from pathlib import Path

import pytest
from moving_ball import SMALL, make_moving_ball

from scene4d.training.options import TrainOptions
from scene4d.training.train import start


@pytest.fixture(scope="session")
def moving_ball(tmp_path_factory) -> Path:
    """The capture of the ball."""
    return make_moving_ball(tmp_path_factory.mktemp("ball"))


@pytest.fixture(scope="session")
def trained(moving_ball, tmp_path_factory) -> Path:
    """A run of it."""
    options = TrainOptions(
        data=moving_ball, output_dir=tmp_path_factory.mktemp("runs"), device="cpu", evaluate=False
    )
    return start(SMALL, options)
