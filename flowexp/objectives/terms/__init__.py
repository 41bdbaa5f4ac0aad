"""Loss terms that any objective takes, a file for each."""

from flowexp.objectives.terms.contrastive_flow import ContrastiveFlow
from flowexp.objectives.terms.dispersive import Dispersive
from flowexp.objectives.terms.repa import RepresentationAlignment
from flowexp.objectives.terms.self_alignment import SelfAlignment
from flowexp.objectives.terms.self_distillation import SelfDistillation
from flowexp.training.loss_term import Step, Tapped, Term, check_tap

__all__ = [
    "ContrastiveFlow",
    "Dispersive",
    "RepresentationAlignment",
    "SelfAlignment",
    "SelfDistillation",
    "Step",
    "Tapped",
    "Term",
    "check_tap",
]
