"""Distances between two sets of feature vectors: Fréchet's, and an unbiased kernel distance that small samples allow.

The Fréchet distance of the two fitted Gaussians, |m1 - m2|² + Tr(S1 + S2 - 2 (S1 S2)^½) (arXiv 1706.08500), is biased upwards by an
amount that falls as 1/n and depends on the features: two samples of one distribution are far from 0. The kernel distance (squared
maximum mean discrepancy, kernel (x·y/D + 1)³ as in arXiv 1801.01401) has expectation 0 there at every n.

Axis legend: N clips, G sources of clips, K feature vectors of a clip, D features, R resamples. All float64.
"""

import numpy as np

CELLS = 4_000_000  # of the kernel matrix that are in memory at a time


def frechet_distance(x_ND: np.ndarray, y_MD: np.ndarray) -> float:
    """Fréchet distance of two samples, each of at least two vectors (sample covariance, divisor n - 1)."""
    a_ND, b_MD = (v - v.mean(0) for v in (x_ND, y_MD))
    n, m = len(a_ND) - 1, len(b_MD) - 1
    if n * m < a_ND.shape[1] ** 2:
        # Tr (S1 S2)^½ is the sum of the singular values of A Bᵀ / sqrt(n m): exact, and cheap where the samples are small.
        root = np.linalg.svd(a_ND @ b_MD.T, compute_uv=False).sum() / np.sqrt(n * m)
    else:
        root = _trace_of_root(a_ND.T @ a_ND / n, b_MD.T @ b_MD / m)
    variances = np.square(a_ND).sum() / n + np.square(b_MD).sum() / m
    return float(np.square(x_ND.mean(0) - y_MD.mean(0)).sum() + max(variances - 2 * root, 0.0))


def _trace_of_root(s_DD: np.ndarray, t_DD: np.ndarray) -> float:
    """Tr (S T)^½ = Tr (S^½ T S^½)^½, whose argument is symmetric: no complex square root is needed."""
    values_D, vectors_DD = np.linalg.eigh(s_DD)
    root_DD = (vectors_DD * np.sqrt(np.maximum(values_D, 0))) @ vectors_DD.T
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(root_DD @ t_DD @ root_DD), 0)).sum())


def clip_gram(x_NKD: np.ndarray, y_NKD: np.ndarray) -> np.ndarray:
    """[N, N]: the mean kernel (x·y/D + 1)³ between the vectors of clip i of x and of clip j of y."""
    N, K, D = x_NKD.shape
    flat, rows = y_NKD.reshape(-1, D), max(1, CELLS // (K * y_NKD.shape[0] * y_NKD.shape[1]))
    parts = [((x_NKD[i : i + rows].reshape(-1, D) @ flat.T / D + 1) ** 3) for i in range(0, N, rows)]
    return np.concatenate([part.reshape(-1, K, *y_NKD.shape[:2]).mean((1, 3)) for part in parts])


def pair_terms(xx_NN: np.ndarray, yy_NN: np.ndarray, xy_NN: np.ndarray) -> np.ndarray:
    """h(i, j) = k(xi, xj) + k(yi, yj) - k(xi, yj) - k(xj, yi), diagonal 0 (Gretton et al. 2012, Lemma 6).

    Clip i is never compared with its own partner, so the mean over pairs stays unbiased for sets that are matched clip by clip
    (futures of the same prefixes), and is exactly 0 for a perfect copy.
    """
    h_NN = xx_NN + yy_NN - xy_NN - xy_NN.T
    np.fill_diagonal(h_NN, 0.0)
    return h_NN


def by_source(h_NN: np.ndarray, source_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(h_GG, pairs_GG): h summed over the pairs of clips of two sources, and how many there are; both diagonals 0.

    Clips of one source resemble each other, so only pairs of different sources say what the sets are like.
    """
    member_GN = (source_N == np.arange(source_N.max() + 1)[:, None]).astype(float)
    sizes_G = member_GN.sum(1)
    h_GG, pairs_GG = member_GN @ h_NN @ member_GN.T, np.outer(sizes_G, sizes_G)
    np.fill_diagonal(h_GG, 0.0)
    np.fill_diagonal(pairs_GG, 0.0)
    return h_GG, pairs_GG


def kernel_distance(h_NN: np.ndarray, source_N: np.ndarray | None = None, weights_RG: np.ndarray | None = None) -> np.ndarray:
    """The mean of h over pairs of clips of different sources: one number, or one per resample given how often it drew each source.

    Each clip is its own source where `source_N` is None. A source that was drawn twice is not compared with itself, which would
    pull resamples upwards. nan where there is no pair.
    """
    h_GG, pairs_GG = by_source(h_NN, np.arange(len(h_NN)) if source_N is None else source_N)
    w_RG = np.ones((1, len(h_GG))) if weights_RG is None else weights_RG
    with np.errstate(invalid="ignore", divide="ignore"):
        values_R = ((w_RG @ h_GG) * w_RG).sum(1) / ((w_RG @ pairs_GG) * w_RG).sum(1)
    return values_R[0] if weights_RG is None else values_R
