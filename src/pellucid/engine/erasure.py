"""Erasure of a concept from activations: the closed form (LEACE) and the iterated null space (INLP)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pellucid.core.errors import InputError


@dataclass(frozen=True, eq=False)
class Eraser:
    """An affine map x - P (x - m): `projection` P [dimension, dimension] and `mean` m [dimension], float64.

    `rank` is how many directions it takes away.
    """

    projection: np.ndarray
    mean: np.ndarray
    rank: int

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return rows [n, dimension] with the concept erased."""
        return rows - (rows - self.mean) @ self.projection.T


def one_hot(labels: np.ndarray) -> np.ndarray:
    """Return labels as columns, one per class; raise `InputError` where there is one class only."""
    classes = np.unique(labels)
    if len(classes) < 2:
        raise InputError(
            f"A concept is erased by its labels, but all are {classes.tolist()}; give two or more classes."
        )
    found: np.ndarray = (labels[:, None] == classes[None]).astype(np.float64)
    return found


def least_squares_eraser(rows: np.ndarray, labels: np.ndarray) -> Eraser:
    """Return the affine map that changes rows least, in the mean square, of all that leave no linear trace of labels.

    P = W^+ Q W with W = S^(-1/2), S the covariance of the rows and Q the orthogonal projection onto the columns of W
    times the cross-covariance with the labels (Belrose et al. 2023, arXiv:2306.03819). Exact: afterwards the
    cross-covariance is zero, so no linear probe does better than a constant on these rows.

    Args:
        rows: activations [n, dimension].
        labels: a class for each row.
    """
    x, z = rows.astype(np.float64), one_hot(labels)
    mean = x.mean(0)
    centred, told = x - mean, z - z.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    kept = values > values.max() * len(values) * np.finfo(np.float64).eps * 10
    roots = np.sqrt(values[kept])
    whiten, unwhiten = vectors[:, kept] / roots, vectors[:, kept] * roots  # W = V / r V', W^+ = V r V'
    cross = whiten.T @ (centred.T @ told / len(x))
    left, sizes, _ = np.linalg.svd(cross, full_matrices=False)
    basis = left[:, sizes > sizes.max() * 1e-10] if sizes.max() > 1e-12 else left[:, :0]
    return Eraser(unwhiten @ basis @ (basis.T @ whiten.T), mean, basis.shape[1])


def null_space_eraser(
    rows: np.ndarray, labels: np.ndarray, *, rounds: int, strength: float = 1.0, tolerance: float = 0.0
) -> tuple[Eraser, list[float]]:
    """Return the orthogonal projection that takes away what linear classifiers find, one after the other.

    Each round fits a logistic regression on what is left and projects onto the null space of all weights so far; it
    ends where the accuracy is no better than the largest class by more than `tolerance`, or after `rounds` (Ravfogel et
    al. 2020, arXiv:2004.07667). An approximation: other classifiers may still find something.

    Returns:
        The eraser (with mean zero) and the accuracy of each round on the rows themselves.
    """
    from sklearn.linear_model import LogisticRegression

    x = rows.astype(np.float64)
    one_hot(labels)
    majority = np.unique(labels, return_counts=True)[1].max() / len(labels)
    taken, accuracies = np.zeros((0, x.shape[1])), list[float]()
    centre = x.mean(0)
    for _ in range(rounds):
        left = (x - centre) - (x - centre) @ taken.T @ taken
        probe = LogisticRegression(C=strength, max_iter=2000).fit(left, labels)
        accuracies.append(float((probe.predict(left) == labels).mean()))
        if accuracies[-1] <= majority + tolerance or len(taken) == x.shape[1]:
            break
        weights = probe.coef_ - probe.coef_ @ taken.T @ taken
        _, sizes, found = np.linalg.svd(weights, full_matrices=False)
        new = found[sizes > sizes.max() * 1e-8]
        taken = np.linalg.qr(np.concatenate([taken, new]).T)[0].T
    return Eraser(taken.T @ taken, np.zeros(x.shape[1]), len(taken)), accuracies
