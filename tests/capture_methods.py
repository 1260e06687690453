"""Methods that tests train on captures: those without one have tests of their own."""

from scene4d.training.methods import load_method, method_names

CAPTURE_METHODS = [name for name in sorted(method_names()) if load_method(name).needs_capture]
