"""The two sides of federated learning: a client, and what the server sees of it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
