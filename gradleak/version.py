"""The version that records carry."""

__version__ = "0.1.0"
