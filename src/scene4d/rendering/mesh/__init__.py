"""The triangle rasteriser.

``rasterization`` is the door: a mesh with a texture or colours becomes colour, alpha, depth,
normals and the triangle of each pixel. ``fragments`` says which triangle a pixel shows and where,
``interpolation`` and ``textures`` what it looks like there, ``silhouettes`` blends the pixels at
outlines, which is where shapes get their gradients from. Each has Numba kernels for the CPU beside
it; ``reference`` is the same in plain torch, any float type, that they are checked against.
"""
