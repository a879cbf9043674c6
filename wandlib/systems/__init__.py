"""Text-to-speech systems on one code path: the embedded voice, and what else is in the registry.

Imported when first used, as all of :mod:`wandlib`: to name an error, or the systems there are, takes no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
