"""The cache of constant size: what lies in which slot, what a pass changes, where it is stored."""

from wandlib.attention.cache.cache import WandCache

__all__ = ["WandCache"]
