"""Text-to-speech that costs the same per step however long it speaks: WAND (arXiv 2604.08558), in the open.

student = wandlib.convert(model, window=32)       # any causal decoder of transformers, in place
speech = wandlib.load_system("mini").synthesize("Hello there.", attention="window")

What there is, and where, stands in ``__init__.pyi``. Each name is imported when it is first used: to print ``--help``
takes no torch, and to speak neither transformers' Trainer nor what it brings along.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
