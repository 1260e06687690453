"""The families of representations, a room each; found by the entry points ``scene4d.methods``."""
