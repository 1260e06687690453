"""Objectives: what turns a representation into a loss for one training step."""
