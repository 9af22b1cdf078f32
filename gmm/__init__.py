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
from gmm.moments import Moments, common_variance, data_power_step, empirical_moments
from gmm.population import population_em_step
from gmm.spectral import SpectralEstimate, fit_spectral, spectral_from_data, spectral_from_moments
from gmm.tasks import Task, TaskDistribution
from gmm.tensor import power_step, robust_tensor_power

__all__ = [
    "GaussianMixture",
    "Moments",
    "SpectralEstimate",
    "Task",
    "TaskDistribution",
    "clustering_accuracy",
    "common_variance",
    "converge",
    "data_power_step",
    "em_jacobian",
    "em_step",
    "empirical_moments",
    "estimate_scale",
    "fit_em",
    "fit_spectral",
    "l2_error",
    "match_components",
    "parameter_distance",
    "population_em_step",
    "power_step",
    "robust_tensor_power",
    "run_em",
    "spectral_from_data",
    "spectral_from_moments",
    "start_mixture",
]
