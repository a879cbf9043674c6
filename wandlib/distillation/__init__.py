"""Training of a windowed student against its full-attention teacher."""

from importlib.util import find_spec

if find_spec("accelerate") is None:  # without it, transformers' Trainer and callbacks cannot even be imported
    raise ImportError("training needs accelerate, which is not installed: pip install 'wandlib[train]'")
