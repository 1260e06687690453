"""Shape annotations are checked at run time in every test."""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook("scene4d", "beartype.beartype")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The team's folder of real captures, beside the checkout; other people will not have it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the captures are not at {SHARED_DATA}")
    return SHARED_DATA
