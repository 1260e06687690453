"""scene4d's splats as a nerfstudio method; see docs/nerfstudio.md.

``method`` is what nerfstudio finds through the entry point group ``nerfstudio.method_configs``.
Nothing here is imported by the rest of scene4d.
"""
