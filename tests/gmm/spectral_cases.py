"""Tensors and mixtures whose answer is known, and Algorithms A.2 and A.3 with loops: the oracles."""

from __future__ import annotations

import math

import numpy as np

from gmm import GaussianMixture, Moments


def conditioned_mixture(d, K, rng, condition=10.0):
    """K means in R^d whose second moment sum pi mu mu^T has K non-zero eigenvalues, from 1 to
    `condition`: pi_k^(1/2) mu_k are the columns of Q S R, Q and R orthonormal."""
    weights = rng.uniform(0.2, 0.8, K)
    weights /= weights.sum()
    sizes = np.sqrt(np.geomspace(1, rng.uniform(1, condition), K))
    Q, _ = np.linalg.qr(rng.standard_normal((d, K)))
    R, _ = np.linalg.qr(rng.standard_normal((K, K)))
    return GaussianMixture(weights, ((Q * sizes) @ R).T / np.sqrt(weights)[:, None])


def planted(d, K, rng, low=0.5, high=4.0):
    """An orthogonal tensor, its eigenvalues and its eigenvectors as rows."""
    values = rng.uniform(low, high, K)
    vectors = np.linalg.qr(rng.standard_normal((d, K)))[0].T
    return np.einsum("k,ka,kb,kc->abc", values, vectors, vectors, vectors), values, vectors


def population_moments(mixture):
    """sum pi mu, sum pi mu (x) mu, sum pi mu (x) mu (x) mu, one component after the other."""
    d = mixture.dim
    m1, m2, m3 = np.zeros(d), np.zeros((d, d)), np.zeros((d, d, d))
    for weight, mean in zip(mixture.weights, mixture.means, strict=True):
        m1 += weight * mean
        m2 += weight * np.multiply.outer(mean, mean)
        m3 += weight * np.multiply.outer(np.multiply.outer(mean, mean), mean)
    return Moments(m1, m2, m3)


def exact_samples(counts, means, sigma=1.0, repeats=1):
    """Samples whose first three moments are those of the mixture of N(mu_k, sigma^2 I) with weights
    proportional to the integers `counts`, and that mixture.

    Around each mean the points mu_k +- sigma sqrt(d) e_j: their covariance is sigma^2 I and, the set
    being symmetric, their third central moment zero.
    """
    counts, means = np.asarray(counts), np.asarray(means, dtype=np.float64)
    d = means.shape[1]
    offsets = sigma * math.sqrt(d) * np.concatenate([np.eye(d), -np.eye(d)])
    around = (means[:, None, :] + offsets).repeat(repeats * counts, axis=0)
    return around.reshape(-1, d), GaussianMixture(counts / counts.sum(), means)


def jacobi(matrix):
    """Eigenvalues, largest first, and eigenvectors as rows, by cyclic rotations."""
    d = len(matrix)
    A = [[float(entry) for entry in row] for row in matrix]
    V = [[float(i == j) for j in range(d)] for i in range(d)]
    for _ in range(30):
        for p in range(d):
            for q in range(p + 1, d):
                if A[p][q] == 0:
                    continue
                angle = 0.5 * math.atan2(2 * A[p][q], A[q][q] - A[p][p])
                c, s = math.cos(angle), math.sin(angle)
                for i in range(d):
                    A[i][p], A[i][q] = c * A[i][p] - s * A[i][q], s * A[i][p] + c * A[i][q]
                for i in range(d):
                    A[p][i], A[q][i] = c * A[p][i] - s * A[q][i], s * A[p][i] + c * A[q][i]
                for row in V:
                    row[p], row[q] = c * row[p] - s * row[q], s * row[p] + c * row[q]
    order = sorted(range(d), key=lambda i: -A[i][i])
    return [A[i][i] for i in order], [[V[j][i] for j in range(d)] for i in order]


def naive_moments(X, sigma=1.0):
    """Algorithm A.2, line 1, as printed, with sigma^2 I for the noise."""
    N, d = X.shape
    m1 = [sum(x[a] for x in X) / N for a in range(d)]
    m2 = [[sum(x[a] * x[b] for x in X) / N - sigma**2 * (a == b) for b in range(d)] for a in range(d)]
    m3 = [[[sum(x[a] * x[b] * x[c] for x in X) / N for c in range(d)] for b in range(d)] for a in range(d)]
    for x in X:
        for j in range(d):
            for a in range(d):
                m3[a][j][j] -= sigma**2 * x[a] / N
                m3[j][a][j] -= sigma**2 * x[a] / N
                m3[j][j][a] -= sigma**2 * x[a] / N
    return np.array(m1), np.array(m2), np.array(m3)


def naive_step(T, v):
    """T(I, v, v) with a triple loop."""
    size = range(len(v))
    return [sum(T[i][j][m] * v[j] * v[m] for j in size for m in size) for i in size]


def naive_power(T, starts, n_iter, n_polish):
    """Algorithm A.3 with deflation; starts (K, R, d) of norm one."""

    def iterate(v, count):
        for _ in range(count):
            v = naive_step(T, v)
            norm = math.sqrt(sum(entry**2 for entry in v))
            v = [entry / norm for entry in v]
        return v

    def value(v):
        return sum(a * b for a, b in zip(naive_step(T, v), v, strict=True))

    T = np.array(T).tolist()
    pairs = []
    for restarts in np.asarray(starts).tolist():
        v = iterate(max((iterate(v, n_iter) for v in restarts), key=value), n_polish)
        pairs.append((value(v), v))
        T = [
            [[T[a][b][c] - pairs[-1][0] * v[a] * v[b] * v[c] for c in range(len(v))] for b in range(len(v))]
            for a in range(len(v))
        ]
    return np.array([value for value, _ in pairs]), np.array([v for _, v in pairs])


def naive_spectral(X, starts, n_iter, n_polish):
    """Raw weights (K,) and means (K, d) of Algorithm A.2 from directions g (K, R, d)."""
    X, K, d = np.asarray(X), len(starts), X.shape[1]
    _, m2, m3 = naive_moments(X)
    sizes, U = jacobi(m2)
    sizes, U = sizes[:K], np.array(U[:K])
    W = [[U[k][a] / math.sqrt(sizes[k]) for k in range(K)] for a in range(d)]
    index = [(a, b, c) for a in range(d) for b in range(d) for c in range(d)]
    T = [
        [[sum(m3[a, b, c] * W[a][p] * W[b][q] * W[c][r] for a, b, c in index) for r in range(K)]
         for q in range(K)]
        for p in range(K)
    ]  # fmt: skip
    begin = [[U @ g / np.linalg.norm(U @ g) for g in restarts] for restarts in starts]
    values, vectors = naive_power(T, begin, n_iter, n_polish)
    weights, means = [], []
    for value, v in zip(values, vectors, strict=True):
        weights.append(1 / value**2)
        B_v = [sum(U[k][a] * math.sqrt(sizes[k]) * v[k] for k in range(K)) for a in range(d)]
        means.append([value * entry for entry in B_v])
    return np.array(weights), np.array(means)
