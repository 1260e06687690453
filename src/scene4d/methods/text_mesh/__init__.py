"""Amortised text-to-mesh."""
