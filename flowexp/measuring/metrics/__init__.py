"""Scores of sets of pictures by their features: collected in one pass over processes, computed by pure functions."""

from flowexp.measuring.metrics.adm import AdmBatch, read_adm_reference, write_adm_batch, write_adm_batches
from flowexp.measuring.metrics.collecting import FeatureCollector, Needs, Statistics
from flowexp.measuring.metrics.extrapolation import frechet_infinity, frechet_interval
from flowexp.measuring.metrics.frechet import distance_of, frechet_distance
from flowexp.measuring.metrics.inception_score import InceptionScore
from flowexp.measuring.metrics.kernel import full_kernel_distance, kernel_distance
from flowexp.measuring.metrics.moments import FeatureMoments, Moments, moments_of
from flowexp.measuring.metrics.nearest_neighbour import nearest_neighbours
from flowexp.measuring.metrics.plan import MetricPlan, metrics_for
from flowexp.measuring.metrics.precision_recall import precision_recall
from flowexp.measuring.metrics.reference import ReferenceCache
from flowexp.measuring.metrics.registry import METRICS, Work, metric
from flowexp.measuring.metrics.scores import subset_of
from flowexp.measuring.metrics.stored import FeatureStore

__all__ = [
    "METRICS",
    "AdmBatch",
    "FeatureCollector",
    "FeatureMoments",
    "FeatureStore",
    "InceptionScore",
    "MetricPlan",
    "Moments",
    "Needs",
    "ReferenceCache",
    "Statistics",
    "Work",
    "distance_of",
    "frechet_distance",
    "frechet_infinity",
    "frechet_interval",
    "full_kernel_distance",
    "kernel_distance",
    "metric",
    "metrics_for",
    "moments_of",
    "nearest_neighbours",
    "precision_recall",
    "read_adm_reference",
    "subset_of",
    "write_adm_batch",
    "write_adm_batches",
]
