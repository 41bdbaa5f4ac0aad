"""Distances between sets of features, accumulated batch by batch and over processes."""

from flowexp.metrics.frechet import FrechetDistance, frechet_distance
from flowexp.metrics.moments import FeatureMoments, Moments
from flowexp.metrics.reference import ReferenceCache

__all__ = ["FeatureMoments", "FrechetDistance", "Moments", "ReferenceCache", "frechet_distance"]
