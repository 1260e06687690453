"""nerfstudio's commands, with torchvision repaired first where it is broken.

``python -m scene4d.integrations.nerfstudio train scene4d-splat --data DATA`` is ``ns-train
scene4d-splat --data DATA``; likewise ``eval``, ``render`` and ``viewer``. ``export`` is ours.
"""

from __future__ import annotations

import importlib
import sys

from scene4d.errors import Scene4dError
from scene4d.integrations.nerfstudio.torchvision_operators import declare_missing_operators

SCRIPTS = {
    "train": "nerfstudio.scripts.train",
    "eval": "nerfstudio.scripts.eval",
    "render": "nerfstudio.scripts.render",
    "viewer": "nerfstudio.scripts.viewer.run_viewer",
    "export": "scene4d.integrations.nerfstudio.export",
}


def main() -> int:
    """Runs one of nerfstudio's scripts with the remaining arguments."""
    if len(sys.argv) < 2 or sys.argv[1] not in SCRIPTS:
        names = "{" + ",".join(SCRIPTS) + "}"
        print(f"usage: python -m scene4d.integrations.nerfstudio {names} ...", file=sys.stderr)
        return 2
    verb = sys.argv.pop(1)
    sys.argv[0] = f"ns-{verb}"
    declare_missing_operators()
    try:
        importlib.import_module(SCRIPTS[verb]).entrypoint()
    except Scene4dError as error:
        print(f"ns-{verb}: error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
