"""Dynamic captures with exact truth, drawn from animated glTF models.

``scripts/make_dynamic_capture.py`` is the way in.
"""
