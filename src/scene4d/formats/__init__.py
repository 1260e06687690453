"""Splat files: readers and writers without torch, one module a format."""
