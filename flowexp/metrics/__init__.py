"""Scores of sets of pictures by their features: collected in one pass over processes, computed by pure functions."""

from flowexp.metrics.adm import AdmBatch, read_adm_reference, write_adm_batch, write_adm_batches
from flowexp.metrics.collecting import FeatureCollector, Needs, Statistics
from flowexp.metrics.extrapolation import frechet_infinity, frechet_interval
from flowexp.metrics.frechet import FrechetDistance, distance_of, frechet_distance
from flowexp.metrics.inception_score import InceptionScore, inception_score
from flowexp.metrics.kernel import full_kernel_distance, kernel_distance
from flowexp.metrics.moments import FeatureMoments, Moments, moments_of
from flowexp.metrics.nearest_neighbour import nearest_neighbours
from flowexp.metrics.plan import MetricPlan, metrics_for
from flowexp.metrics.precision_recall import precision_recall
from flowexp.metrics.reference import ReferenceCache
from flowexp.metrics.registry import METRICS, Work, metric
from flowexp.metrics.scores import subset_of
from flowexp.metrics.stored import FeatureStore

__all__ = [
    "METRICS",
    "AdmBatch",
    "FeatureCollector",
    "FeatureMoments",
    "FeatureStore",
    "FrechetDistance",
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
    "inception_score",
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
