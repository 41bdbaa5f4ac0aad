"""Loss terms that any objective takes: dispersive, representation alignment, self-distillation."""

from flowexp.terms.base import Step, Tapped, Term, check_tap
from flowexp.terms.dispersive import Dispersive
from flowexp.terms.repa import RepresentationAlignment
from flowexp.terms.self_distillation import SelfDistillation

__all__ = [
    "Dispersive",
    "RepresentationAlignment",
    "SelfDistillation",
    "Step",
    "Tapped",
    "Term",
    "check_tap",
]
