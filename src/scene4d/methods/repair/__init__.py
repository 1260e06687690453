"""Training of a fixer: pairs of damaged and clean pictures that our own trainings make."""
