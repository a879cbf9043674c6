"""The embedded voice: a small codec, a small Qwen2, a few speakers; offline, on a CPU."""

from wandlib.systems.mini.system import MiniSystem

__all__ = ["MiniSystem"]
