"""Loss terms that any objective takes: dispersive, representation alignment, self-distillation."""

from flowexp.terms.base import Step, Tapped, Term, check_tap

__all__ = ["Step", "Tapped", "Term", "check_tap"]
