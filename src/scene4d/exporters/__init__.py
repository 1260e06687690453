"""One module per target format; every exporter writes in the input's own coordinate frame."""
