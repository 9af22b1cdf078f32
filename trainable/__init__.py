"""TGMM: a transformer that learned to fit Gaussian mixtures (sections 2 and 3)."""

from trainable.estimator import TGMM, pretrained

__all__ = ["TGMM", "pretrained"]
