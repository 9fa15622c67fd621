"""jaxppo on the GPU at hand: see `__main__.py`."""
