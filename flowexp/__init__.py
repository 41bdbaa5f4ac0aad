"""flowexp: flow-matching experiments (FM, LCF, MAFM, SSC). Importing it loads nothing else."""

__version__ = "0.1.0"
