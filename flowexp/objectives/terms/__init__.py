"""Loss terms that any objective takes: dispersive, representation alignment, self-distillation."""

from flowexp.objectives.terms.dispersive import Dispersive
from flowexp.objectives.terms.repa import RepresentationAlignment
from flowexp.objectives.terms.self_distillation import SelfDistillation
from flowexp.training.loss_term import Step, Tapped, Term, check_tap

__all__ = [
    "Dispersive",
    "RepresentationAlignment",
    "SelfDistillation",
    "Step",
    "Tapped",
    "Term",
    "check_tap",
]
