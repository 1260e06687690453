"""Cameras, rays and camera paths."""
