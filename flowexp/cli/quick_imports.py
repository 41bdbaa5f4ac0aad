"""Imports that load what a command uses: in front of its work lie torch and Lightning, and not what those could use.

Lightning needs `torchmetrics.Metric`, and the package around it imports SciPy's signals, Matplotlib, torchvision and
transformers where they are installed. Lightning and every optimizer import torch's compiler, and with it SymPy and
Triton, to ask whether something is compiled. Both stand here as modules whose code runs once it is used: three of the
five seconds that imports took.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


@contextmanager
def quick_imports() -> Iterator[None]:
    """Within it torch and Lightning are imported without what they may never use, and no garbage is collected.

    The collector would walk through all that is loaded again and again: a fifth of the time of importing torch. Where
    torch is there already, nothing changes.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        postpone_the_compiler()
        postpone_torchmetrics()
        yield
    finally:
        gc.freeze()  # what is loaded stays: no later collection walks through it
        atexit.register(gc.unfreeze)  # at the end it is given back, or nanobind reports it as leaked
        gc.enable()


class Postponed(ModuleType):
    """A module whose code runs when a name is wanted that is not there.

    Arguments:
        spec: where the module lies.
        **names: those that are there without running its code.
    """

    def __init__(self, spec: ModuleSpec, **names: Any) -> None:
        super().__init__(spec.name)
        place = {"__spec__": spec, "__loader__": spec.loader, "__file__": spec.origin, "__package__": spec.parent}
        path = {} if spec.submodule_search_locations is None else {"__path__": spec.submodule_search_locations}
        self.__dict__.update(place, **path, **names)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of Python's machinery, which looks whether a module has them
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.complete()
        return getattr(self, name)

    def complete(self) -> None:
        """Runs the module's code, which makes it a module like any other."""
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__ is not None and self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)


class _CompletesForSubmodules(MetaPathFinder):
    """Completes a postponed package before the first of its submodules is imported, as Python does with any."""

    def __init__(self, package: Postponed) -> None:
        self._package = package

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Names no module: those behind it in the list of finders do."""
        if name.startswith(f"{self._package.__name__}.") and isinstance(self._package, Postponed):
            self._package.complete()


# --- torch._dynamo ---------------------------------------------------------------------------------------------------

_COMPILER = "torch._dynamo"


def postpone_the_compiler() -> None:
    """Puts a stand-in for torch's compiler, which nothing is compiled without completing."""
    torch = importlib.import_module("torch")
    if _COMPILER in sys.modules:
        return
    package = _postponed(
        _COMPILER, torch.__path__, OptimizedModule=_Compiled, disable=_as_it_is, graph_break=lambda: None
    )
    sys.meta_path.insert(0, _CompletesForSubmodules(package))


class _IsCompiled(type):
    def __instancecheck__(cls, instance: object) -> bool:
        compiler: Any = sys.modules[_COMPILER]
        return not isinstance(compiler, Postponed) and isinstance(instance, compiler.OptimizedModule)


class _Compiled(metaclass=_IsCompiled):
    """What Lightning compares modules with: none is compiled before the compiler is there."""


def _as_it_is(function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
    """What keeps the compiler out of a function, such as the step of an optimizer, while there is no compiler."""
    return function


# --- torchmetrics ----------------------------------------------------------------------------------------------------


def postpone_torchmetrics() -> None:
    """Puts `Metric` and `MetricCollection` in place of torchmetrics; any other of its names loads all of it."""
    if "torchmetrics" in sys.modules:
        return
    package = _postponed("torchmetrics", None, _logger=logging.getLogger("torchmetrics"))
    folder, drawn = f"{package.__path__[0]}/utilities", {"_AX_TYPE": Any, "_PLOT_OUT_TYPE": Any}
    _postponed("torchmetrics.utilities.plot", [folder], **drawn, plot_single_or_multi_val=_plot)
    importlib.import_module("torchmetrics.utilities")  # first, since it and `metric` import each other
    for module, name in (("__about__", "__version__"), ("metric", "Metric"), ("collections", "MetricCollection")):
        setattr(package, name, getattr(importlib.import_module(f"torchmetrics.{module}"), name))


def _plot(*arguments: Any, **options: Any) -> Any:
    """Draws a metric by torchmetrics, with Matplotlib."""
    plot = sys.modules["torchmetrics.utilities.plot"]
    if isinstance(plot, Postponed):
        plot.complete()
    return plot.plot_single_or_multi_val(*arguments, **options)


def _postponed(name: str, path: Sequence[str] | None, **names: Any) -> Postponed:
    """The module of that name, on the path of its package, in its place among the imported ones."""
    spec = PathFinder.find_spec(name, path)
    assert spec is not None, f"{name} belongs to a requirement of flowexp"
    module = sys.modules[name] = Postponed(spec, **names)
    return module
