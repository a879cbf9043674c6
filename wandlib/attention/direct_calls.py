"""``model.forward(...)``, called by itself as PEFT does, goes through the hooks of ``model(...)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

ENTERED = "_through_hooks"
"""The keyword by which the last hook tells forward that the hooks have run, and on which module."""


class HookedForward:
    """Stands in for ``module.forward``: a call that went past the module's hooks is made again through them.

    Made after the other hooks; :meth:`remove` ends it. The hooks' word comes with the call, and not by an attribute, so
    that threads, replicas of the module (``DataParallel``) and compiled code do not mix theirs up. ``abandoned`` is
    called where forward raises: after a KeyboardInterrupt torch itself would call no hook.
    """

    def __init__(self, module: nn.Module, abandoned: Callable[[], None]) -> None:
        self.module, self.abandoned, self.removed = module, abandoned, False
        self.replaced = vars(module).get("forward")
        """The forward that another wrapper had put on this object, as accelerate does."""
        self.handle = module.register_forward_pre_hook(self._enter, with_kwargs=True)
        module.forward = self

    @property
    def __signature__(self) -> inspect.Signature:
        """That of the class."""
        return inspect.signature(type(self.module).forward.__get__(self.module))

    def _enter(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Give the word: the last forward pre-hook."""
        return args, kwargs | {ENTERED: module}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module; arguments and result are its own."""
        if args and args[0] is self.module:  # accelerate binds what it unwraps
            args = args[1:]
        module = kwargs.pop(ENTERED, None)
        if module is None:
            if not self.removed:
                return self.module(*args, **kwargs)
            module = self.module
        try:
            if self.replaced is not None:
                return self.replaced(*args, **kwargs)
            return type(module).forward(module, *args, **kwargs)
        except BaseException:
            self.abandoned()
            raise

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
