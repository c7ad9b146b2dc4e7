"""Gradient-leakage attacks as Bayes' rule: clients, defenses, priors and adversaries."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
