"""Low-rank layers of a diffusion model, fitted to one capture."""
