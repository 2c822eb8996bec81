"""cxrnet: chest X-ray classification with results that can be defended."""

__version__ = "0.1.0"
