"""Evaluation: metrics, the protocol that measures a representation, and the report."""
