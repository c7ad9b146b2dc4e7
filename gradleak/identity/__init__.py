"""What a result is named after: a description of everything that decides it, and its digest.

Classes and functions of this package enter by name, by the fields that are not at their defaults,
and by a `revision` that is raised by hand when their values change; those of the libraries
(`LIBRARIES`) and of Python by name; anybody else's by their code and by the values that it refers
to. A network enters by the way it was made while it still is what was made, and else by its
weights.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
