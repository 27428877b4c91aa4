"""The mass-mean probe: the linear discriminant of two classes that share a covariance."""

from __future__ import annotations

import numpy as np


def mass_mean_probe(positive: np.ndarray, negative: np.ndarray, shrinkage: float) -> tuple[np.ndarray, float]:
    """Return w and b of the probe sigmoid(h'w + b) for rows [n, dimension] of each class.

    w = S^-1 (m+ - m-), b = -w'(m+ + m-) / 2, with S the covariance within the classes plus `shrinkage` times its mean
    variance on the diagonal. Closed form.
    """
    means = positive.mean(0).astype(np.float64), negative.mean(0).astype(np.float64)
    centred = np.concatenate([positive - means[0], negative - means[1]])
    covariance = centred.T @ centred / len(centred)
    size = np.trace(covariance) / len(covariance)
    covariance += (shrinkage * size + 1e-12 * max(size, 1.0)) * np.eye(len(covariance))
    weights = np.linalg.lstsq(covariance, means[0] - means[1], rcond=None)[0]
    return weights, float(-weights @ (means[0] + means[1]) / 2)
