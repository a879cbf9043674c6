"""The systems there are: a name, and where the class is that loads it. A new system is one line here.

What can be trained has a second line, and, where its language model is not transformers' own, one in
:data:`wandlib.attention.conversion.OWN_MODELS`, by which :func:`wandlib.load` finds the class. Nothing here brings
torch before a system is loaded: the command line speaks of systems long before it needs one.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wandlib.systems.settings import InputError, check_device

if TYPE_CHECKING:
    from wandlib.systems.base import SpeechSystem
    from wandlib.systems.training import SystemTraining

SYSTEMS = {
    "mini": "wandlib.systems.mini:MiniSystem",
    "cosyvoice2": "wandlib.systems.cosyvoice2:CosyVoice2System",
    "sparktts": "wandlib.systems.sparktts.system:SparkSystem",
    "indextts": "wandlib.systems.indextts.system:IndexSystem",
    "neutts": "wandlib.systems.codec_lm.system:NeuTTSSystem",
    "llasa": "wandlib.systems.codec_lm.system:LlasaSystem",
}
"""``module:class`` by name, imported when it is asked for; the class has a ``load(folder, ...)``."""

SHIPPED = {"mini": Path(__file__).parents[1] / "assets" / "mini"}
"""Folders of the weights that come with the package."""

TRAINING = {
    "cosyvoice2": "wandlib.systems.cosyvoice2.training:CosyVoice2Training",
    "sparktts": "wandlib.systems.sparktts.training:SparkTraining",
    "indextts": "wandlib.systems.indextts.training:IndexTraining",
    "neutts": "wandlib.systems.codec_lm.training:NeuTTSTraining",
    "llasa": "wandlib.systems.codec_lm.training:LlasaTraining",
}
"""``module:class`` of the :class:`~wandlib.systems.training.SystemTraining` of what can be trained."""


def load_system(
    name: str = "mini",
    folder: str | Path | None = None,
    *,
    device: Any = "cpu",
    dtype: Any = None,
    student: bool | str | Path = True,
    **options: Any,
) -> SpeechSystem:
    """Load a text-to-speech system.

    Parameters
    ----------
    name
        One of :data:`SYSTEMS`; "mini" is the embedded voice, shipped with the package.
    folder
        Its checkpoint, as it is published; None: the weights shipped with the package, which only "mini" has.
    device
        Where it runs: a torch device or its name.
    dtype
        A torch dtype for the language model; None: the system's own choice for the device.
    student
        Whether to use weights trained for the window under attention="window" where the checkpoint has them; False:
        the teacher's own. A folder: the student in that folder.
    options
        What else the system's ``load`` takes.

    Raises
    ------
    InputError
        For a name that is not a system, a device that is not here, an option that the system does not take, or a
        system that needs a folder and was given none.
    FileNotFoundError
        Where the folder or a file in it is missing.
    """
    if name not in SYSTEMS:
        raise InputError(f"no system named {name!r}: there is {', '.join(map(repr, SYSTEMS))}")
    load = imported(SYSTEMS[name]).load
    parameters = inspect.signature(load).parameters
    if folder is None and parameters["folder"].default is inspect.Parameter.empty:
        raise InputError(f"{name} comes without weights: give the folder of its checkpoint")
    unknown = sorted(options.keys() - parameters.keys())
    if unknown:
        raise InputError(f"{name} takes no {', '.join(unknown)}: it takes {', '.join(parameters)}")
    tell_license(name)
    system: SpeechSystem = load(folder, device=check_device(device), dtype=dtype, student=student, **options)
    return system


@cache
def tell_license(name: str) -> None:
    """Log under which terms the weights of a system are, once in a process: a warning where they are not free."""
    if name in TRAINING:
        base = training_of(name).base
        level = logging.INFO if base.license == "apache-2.0" else logging.WARNING
        logging.getLogger(__name__).log(level, "weights of %s: %s", base.title, " ".join(base.terms.split()))


def imported(entry: str) -> Any:
    """Return the class that ``module:class`` names."""
    module, _, kind = entry.partition(":")
    return getattr(importlib.import_module(module), kind)


def training_of(name: str) -> SystemTraining:
    """Return what training needs of a system.

    Parameters
    ----------
    name
        In :data:`TRAINING`, or the beginning of one name alone ("cosyvoice").

    Raises
    ------
    InputError
        If nothing, or more than one, is called so.
    """
    found = [entry for entry in TRAINING if entry == name] or [entry for entry in TRAINING if entry.startswith(name)]
    if not name or len(found) != 1:
        raise InputError(f"no system named {name!r} can be trained: there is {', '.join(map(repr, TRAINING))}")
    training: SystemTraining = imported(TRAINING[found[0]])()
    return training
