"""scene4d: neural 3D and 4D scene representations, trained anywhere, small enough for a phone.

The flow through the package: capture -> ``data`` -> Scene -> ``training`` (a representation,
objectives, schedules) -> run folder -> ``exporters`` and ``bundle``. Importing ``scene4d`` itself
imports neither torch nor numba; each room imports what it needs.
"""

__version__ = "0.1.0"
