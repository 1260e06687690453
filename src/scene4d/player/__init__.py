"""The web player: packing it, serving it, and to a phone."""
