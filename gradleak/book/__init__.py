"""The executable book: find the chapters, run them, render the site, publish the outputs.

Attacks, defenses and figures live in the folders beside this one and know nothing of it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
