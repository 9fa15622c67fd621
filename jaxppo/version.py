"""The version of the package: pyproject.toml reads it here, so that a checkout that is not installed knows it, too."""

__version__ = "0.3.0"
