"""Priors: what pictures look like, asked through one call, and the losses that ask them."""
