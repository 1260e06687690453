"""Differentiable renderers, each with fast back ends and a plain-torch reference.

``splats.rasterization`` draws 3D Gaussians; ``backends`` says which back ends work here.
"""
