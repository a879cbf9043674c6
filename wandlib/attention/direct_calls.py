"""``model.forward(...)``, called by itself as PEFT does, goes through the hooks of ``model(...)``."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import torch
from torch import nn


class HookedForward:
    """Stands in for ``module.forward``: a call that went past the module's hooks is made again through them.

    ``module(...)`` runs the hooks first, the last of which leaves a mark that its call of ``forward`` takes away. Made
    after the other hooks; :meth:`remove` ends it.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.removed = module, False
        self.replaced = vars(module).get("forward")
        """The forward that another wrapper had put on this object, as accelerate does."""
        self.entering: set[int] = set()
        """The threads that have run the hooks and are about to call forward."""
        self.handle = module.register_forward_pre_hook(self._enter)
        module.forward = self

    @property
    def __signature__(self) -> inspect.Signature:
        """That of the class."""
        return inspect.signature(type(self.module).forward.__get__(self.module))

    @property
    def __func__(self) -> Any:
        """The function of a bound method, which accelerate wraps for autocast."""
        return type(self.module).forward

    def _enter(self, module: nn.Module, args: Any) -> None:
        """Leave the mark: the last forward pre-hook of the module."""
        if not torch.compiler.is_compiling():
            self.entering.add(threading.get_ident())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module; arguments and result are its own."""
        if not self.removed and not torch.compiler.is_compiling():
            thread = threading.get_ident()
            if thread not in self.entering:
                return self.module(*args, **kwargs)
            self.entering.discard(thread)
        if self.replaced is not None:
            return self.replaced(*args, **kwargs)
        return type(self.module).forward(self.module, *args, **kwargs)

    def remove(self) -> None:
        """Put back what was there; where another wrapper was put around this since, only hand on."""
        self.handle.remove()
        self.removed = True
        if vars(self.module).get("forward") is not self:
            return
        if self.replaced is None:
            del self.module.forward
        else:
            self.module.forward = self.replaced
