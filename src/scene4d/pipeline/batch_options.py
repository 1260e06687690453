"""How a batch is shared out; torch-free for ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from scene4d.ranges import Within


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How the work is shared out."""

    address: str = "auto"
    """The cluster: auto (the one of this machine, or one that is started here), HOST:PORT from a
    node of it, or ray://HOST:10001 from elsewhere."""
    cpus: Annotated[int, Within(1, 1024)] = 2
    """Cores for poses, training and compression of one scene; at most those of a node."""
    retries: Annotated[int, Within(0, 100)] = 2
    """How often a stage is tried again whose node was lost, or that failed for a reason that is not
    its input's."""
