"""flowexp: flow-matching experiments (FM, LCF, MAFM, SSC). Importing it loads nothing else."""

import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # Python's name for a program while `python -m flowexp.train` looks for it
    from flowexp.training.signals import leave_quietly

    leave_quietly()
