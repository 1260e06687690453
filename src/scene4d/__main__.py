"""``python -m scene4d`` is the command ``scene4d``: torchrun starts modules, not commands."""

from __future__ import annotations

from scene4d.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
