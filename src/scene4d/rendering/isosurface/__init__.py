"""Surfaces of signed distances on a grid, differentiable: FlexiCubes.

``flexicubes`` is the door: distances at the corners of cubes become a closed mesh that moves with
them. ``cubes`` says where the surface is, ``kernels`` where its vertices are; ``reference`` is the
same in plain torch, any float type, that the kernels are checked against.
"""
