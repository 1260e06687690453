"""The ``.s4d`` bundle: container, quantisation, entropy coding. Needs no torch."""
