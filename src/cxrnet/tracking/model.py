"""Where models that were logged before find their loader."""

from cxrnet.tracking.pyfunc import _load_pyfunc

__all__ = ["_load_pyfunc"]
