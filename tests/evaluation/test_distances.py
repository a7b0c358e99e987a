"""Distances of feature sets: closed forms for Gaussians, unbiasedness, and agreement with SciPy and torchmetrics."""

import numpy as np
import pytest

from worldfoundry.evaluation.distances import by_source, clip_gram, frechet_distance, kernel_distance, pair_terms


def with_moments(rng, n, mean, root):
    """A sample whose mean and covariance are exactly `mean` and root rootᵀ."""
    x = rng.standard_normal((n, len(mean)))
    x -= x.mean(0)
    factor = np.linalg.cholesky(x.T @ x / (n - 1))
    return np.linalg.solve(factor, x.T).T @ root.T + mean


def terms(x, y):
    return pair_terms(clip_gram(x, x), clip_gram(y, y), clip_gram(x, y))


@pytest.mark.parametrize("n", [9, 200])
def test_frechet_distance_of_gaussians_with_one_eigenbasis_is_known(n):
    """|m1 - m2|² + Σ (σ1 - σ2)², whichever way the root is computed (few samples, many samples)."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((7, 7)))
    s1, s2 = rng.uniform(0.5, 3, (2, 7))
    m1, m2 = rng.standard_normal((2, 7))
    x, y = with_moments(rng, n, m1, basis * s1), with_moments(rng, n + 3, m2, basis * s2)
    assert frechet_distance(x, y) == pytest.approx(np.square(m1 - m2).sum() + np.square(s1 - s2).sum(), rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("n", "d"), [(6, 20), (40, 20), (200, 20)])
def test_frechet_distance_agrees_with_scipys_matrix_root(n, d):
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)), rng.standard_normal((n + 5, d)) + 0.3
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.trace(linalg.sqrtm(s @ t)).real
    want = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s) + np.trace(t) - 2 * root
    assert frechet_distance(x, y) == pytest.approx(want, rel=1e-5)


def test_frechet_distance_agrees_with_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((300, 30)), 1.3 * rng.standard_normal((200, 30)) + 0.2
    moments = (torch.tensor(v) for z in (x, y) for v in (z.mean(0), np.cov(z, rowvar=False)))
    assert frechet_distance(x, y) == pytest.approx(fid._compute_fid(*moments).item(), rel=1e-6)


def test_frechet_distance_of_small_samples_is_biased_and_the_kernel_distance_is_not():
    rng = np.random.default_rng(3)
    frechet, kernel, errors = [], [], []
    for _ in range(300):
        x, y = rng.standard_normal((2, 30, 1, 12))
        frechet.append(frechet_distance(x[:, 0], y[:, 0]))
        kernel.append(float(kernel_distance(terms(x, y))))
        errors.append(np.square(kernel[-1]))
    standard_error = np.std(kernel) / np.sqrt(len(kernel))
    assert abs(np.mean(kernel)) < 3.5 * standard_error
    assert np.mean(frechet) > 5 * np.std(frechet)


def test_kernel_distance_estimates_the_population_value():
    """In one dimension with x = a and y = b (point masses) k - 2k + k = (a² + 1)³ + (b² + 1)³ - 2 (ab + 1)³ at every n."""
    a, b = 0.7, -0.4
    x, y = np.full((5, 2, 1), a), np.full((5, 2, 1), b)
    want = (a * a + 1) ** 3 + (b * b + 1) ** 3 - 2 * (a * b + 1) ** 3
    assert kernel_distance(terms(x, y)) == pytest.approx(want)


def test_kernel_distance_of_gaussians_is_its_closed_form():
    """(xy + 1)³ = Σ C(3, m) (xy)^m, so the distance is Σ C(3, m) (E x^m - E y^m)²; the mean over samples comes to that."""
    rng = np.random.default_rng(4)
    mean, spread = 0.5, 1.2
    moments = np.array([mean, mean**2 + spread**2, mean**3 + 3 * mean * spread**2]) - np.array([0, 1, 0])
    want = (np.array([3, 3, 1]) * moments**2).sum()
    found = [
        float(kernel_distance(terms(rng.standard_normal((60, 1, 1)), mean + spread * rng.standard_normal((60, 1, 1)))))
        for _ in range(200)
    ]
    assert abs(np.mean(found) - want) < 3.5 * np.std(found) / np.sqrt(len(found))


def test_a_perfect_copy_is_exactly_zero_and_a_matched_one_unbiased():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((20, 3, 8))
    assert kernel_distance(terms(x, x)) == 0
    values = []
    for _ in range(300):  # y has the distribution of x and depends on it clip by clip
        x = rng.standard_normal((20, 1, 8))
        y = 0.8 * x + 0.6 * rng.standard_normal(x.shape)
        values.append(float(kernel_distance(terms(x, y))))
    assert abs(np.mean(values)) < 3.5 * np.std(values) / np.sqrt(len(values))


def test_resamples_do_not_compare_a_clip_with_itself():
    rng = np.random.default_rng(6)
    h = terms(rng.standard_normal((6, 1, 4)), rng.standard_normal((6, 1, 4)))
    drawn = np.array([0, 0, 1, 3, 3, 3])
    weights = np.bincount(drawn, minlength=6).astype(float)
    pairs = [h[i, j] for i in drawn for j in drawn if i != j]
    assert kernel_distance(h, weights_RG=weights[None])[0] == pytest.approx(np.mean(pairs))
    assert kernel_distance(h, weights_RG=np.ones((1, 6)))[0] == pytest.approx(float(kernel_distance(h)))


def test_clips_of_one_source_are_not_compared():
    rng = np.random.default_rng(8)
    h = terms(rng.standard_normal((5, 1, 4)), rng.standard_normal((5, 1, 4)))
    source = np.array([0, 0, 1, 2, 2])
    pairs = [h[i, j] for i in range(5) for j in range(5) if source[i] != source[j]]
    assert float(kernel_distance(h, source)) == pytest.approx(np.mean(pairs))
    drawn = np.array([[2.0, 1.0, 0.0]])  # source 0 twice, source 1 once: pairs of their clips, and none of a source with itself
    assert kernel_distance(h, source, drawn)[0] == pytest.approx(np.mean([h[0, 2], h[1, 2], h[2, 0], h[2, 1]]))
    assert np.isnan(kernel_distance(h, np.zeros(5, int)))
    h_GG, pairs_GG = by_source(h, source)
    assert pairs_GG.tolist() == [[0, 2, 4], [2, 0, 2], [4, 2, 0]]
    assert h_GG[0, 1] == pytest.approx(h[0, 2] + h[1, 2])


def test_the_gram_averages_over_the_vectors_of_a_clip():
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((2, 3, 5)), rng.standard_normal((4, 2, 5))
    want = [[np.mean([(a @ b / 5 + 1) ** 3 for a in i for b in j]) for j in y] for i in x]
    np.testing.assert_allclose(clip_gram(x, y), want)
