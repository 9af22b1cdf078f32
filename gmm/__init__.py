"""Gaussian mixtures and the classical answers to them: the oracles of this project.

Imports numpy and scipy only.
"""

from gmm.em import (
    converge,
    em_jacobian,
    em_step,
    estimate_scale,
    fit_em,
    run_em,
    start_mixture,
)
from gmm.metrics import clustering_accuracy, l2_error, match_components, parameter_distance
from gmm.mixture import GaussianMixture
from gmm.population import population_em_step
from gmm.tasks import Task, TaskDistribution

__all__ = [
    "GaussianMixture",
    "Task",
    "TaskDistribution",
    "clustering_accuracy",
    "converge",
    "em_jacobian",
    "em_step",
    "estimate_scale",
    "fit_em",
    "l2_error",
    "match_components",
    "parameter_distance",
    "population_em_step",
    "run_em",
    "start_mixture",
]
