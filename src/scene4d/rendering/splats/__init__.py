"""The 3D Gaussian rasteriser.

``rasterization`` is the door, with gsplat's arguments; ``reference`` is the plain-torch version
that the others are checked against; ``projection`` + ``harmonics`` + ``compositing`` (with
``binning`` and ``simd``) are the Numba back end for the CPU; ``cuda`` hands over to gsplat.
"""
