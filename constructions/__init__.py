"""The paper's explicit constructions as plain weight matrices, and one forward pass for them all."""

from constructions.construction import Construction, Estimate, Program
from constructions.diagonal import DiagonalEMTransformer
from constructions.em import EMTransformer
from constructions.files import load, save
from constructions.piecewise import PiecewiseLinear, log_approximation, square_approximation
from constructions.residual import Layout
from constructions.spectral import SpectralTransformer
from constructions.tensor_power import TensorPowerTransformer
from constructions.trace import Trace
from constructions.transformer import Transformer
from constructions.weights import Head, Layer, Sizes

__all__ = [
    "Construction",
    "DiagonalEMTransformer",
    "EMTransformer",
    "Estimate",
    "Head",
    "Layer",
    "Layout",
    "PiecewiseLinear",
    "Program",
    "Sizes",
    "SpectralTransformer",
    "TensorPowerTransformer",
    "Trace",
    "Transformer",
    "load",
    "log_approximation",
    "save",
    "square_approximation",
]
