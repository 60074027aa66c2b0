"""Every refiner is its formula, written out pixel by pixel on small images, and keeps what it says that it keeps."""

import itertools

import numpy as np
import pytest
import torch

from crispseg.refinement import BilateralSolver, DenseCRF, GuidedFilter, ScoreDiffusion, dense_crf, refine
from crispseg.refinement.bilateral_solver import YUV
from crispseg.refinement.permutohedral import lattice

K = 3


def case(height=14, width=18, seed=0, noise=0.03):
    """A disc on a ramp of colours with noise; probabilities of a blurred and displaced disc. Float32, as predicted."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    disc = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 3) ** 2
    image = torch.stack([disc * 0.5 + 0.2, x / width, 0.8 - disc * 0.4])
    image = (image + noise * torch.randn(3, height, width, generator=generator)).clamp(0, 1)
    logits = torch.randn(K, height, width, generator=generator)
    logits[1] += 3 * disc.roll(2, 1) - 1
    return logits.softmax(0), image


def pixels(x):
    """(N, C) of (C, H, W), float64."""
    return x.flatten(1).T.double().numpy()


def places(x):
    return np.stack(np.meshgrid(*map(np.arange, x.shape[1:]), indexing="ij"), -1).reshape(-1, 2).astype(float)


def affinity(features):
    return np.exp(-((features[:, None] - features[None]) ** 2).sum(-1) / 2)


def crf_by_hand(p, image, r):
    """Mean field over all pairs of pixels."""
    colour, place = 255 * pixels(image) / r.theta_beta, places(image)
    kernels = [affinity(np.concatenate([place / r.theta_alpha, colour], 1)), affinity(place / r.theta_gamma)]
    normal = [k / np.sqrt(k.sum(1)[:, None] * k.sum(1)[None]) for k in kernels]
    unary = np.log(pixels(p))
    q = pixels(p)
    for _ in range(r.iterations):
        energy = unary + r.appearance * normal[0] @ q + r.smoothness * normal[1] @ q
        q = np.exp(energy)
        q /= q.sum(1, keepdims=True)
    return q


def test_the_smoothness_of_the_crf_is_exact():
    p, image = case()
    r = DenseCRF(appearance=0, smoothness=2.5, theta_gamma=1.5, iterations=4)
    assert np.abs(pixels(r(p, image)) - crf_by_hand(p, image, r)).max() < 2e-3


def test_the_crf_is_mean_field_where_the_filter_is_exact(monkeypatch):
    p, image = case()
    monkeypatch.setattr(dense_crf, "lattice", lambda features: lambda values: affinity(features) @ values)
    r = DenseCRF(theta_alpha=6, theta_beta=20, iterations=3)
    assert np.abs(pixels(r(p, image)) - crf_by_hand(p, image, r)).max() < 2e-3  # the smoothness is cut at 4 deviations


@pytest.mark.parametrize(("theta_alpha", "theta_beta"), [(80, 13), (10, 30), (4, 60)])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_the_crf_is_mean_field_as_far_as_the_lattice_is_a_gaussian(theta_alpha, theta_beta, noise):
    p, image = case(24, 32, noise=noise)
    r = DenseCRF(theta_alpha=theta_alpha, theta_beta=theta_beta, appearance=1)
    error = np.abs(pixels(r(p, image)) - crf_by_hand(p, image, r))
    assert error.mean() < 0.004 and error.max() < 0.03


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_the_lattice_is_a_gaussian_filter_nearly(dimensions):
    """Normalised, as it is used: the mean of values that the kernel weighs."""
    generator = np.random.default_rng(dimensions)
    features = generator.normal(0, 2, (400, dimensions)) * 0.5
    values = generator.random((400, 2)).astype(np.float32)
    kernel, near = affinity(features), lattice(features)
    expected = kernel @ values / kernel.sum(1, keepdims=True)
    found = near(values) / near(np.ones((400, 1), np.float32))
    error = np.abs(found - expected)
    assert error.mean() < 0.01 and error.max() < 0.15


def guided_by_hand(p, image, r):
    """The linear function of each window, fitted by its normal equations; then the mean of all that hold a pixel."""
    _, height, width = image.shape
    image, p = image.double().numpy(), p.double().numpy()

    def window(y, x):
        rows = slice(max(0, y - r.radius), y + r.radius + 1)
        return rows, slice(max(0, x - r.radius), x + r.radius + 1)

    a, b = np.zeros((K, 3, height, width)), np.zeros((K, height, width))
    for y, x, k in itertools.product(range(height), range(width), range(K)):
        colours, scores = image[(slice(None), *window(y, x))].reshape(3, -1), p[(k, *window(y, x))].ravel()
        sigma = np.cov(colours, bias=True) + r.epsilon * np.eye(3)
        a[k, :, y, x] = np.linalg.solve(sigma, (colours * scores).mean(1) - colours.mean(1) * scores.mean())
        b[k, y, x] = scores.mean() - a[k, :, y, x] @ colours.mean(1)
    q = np.zeros_like(p)
    for y, x, k in itertools.product(range(height), range(width), range(K)):
        mean_a = a[(k, slice(None), *window(y, x))].reshape(3, -1).mean(1)
        q[k, y, x] = mean_a @ image[:, y, x] + b[(k, *window(y, x))].mean()
    return q


@pytest.mark.parametrize("options", [{"radius": 1, "epsilon": 1e-2}, {"radius": 4, "epsilon": 1e-4}])
def test_the_guided_filter_is_its_windows_one_by_one(options):
    p, image = case(9, 11)
    r = GuidedFilter(**options)
    torch.testing.assert_close(r(p, image), torch.from_numpy(guided_by_hand(p, image, r)).float(), rtol=0, atol=1e-5)


def solver_by_hand(p, image, r):
    """The minimum over all x that are constant in the cells, with the affinity of all pairs of pixels."""
    colours = YUV @ (255 * image.flatten(1).double().numpy())
    sizes = [r.sigma_spatial] * 2 + [r.sigma_luma] + [r.sigma_chroma] * 2
    points = np.concatenate([places(image).T, colours]).T // sizes
    cells = sorted({tuple(point) for point in points})
    S = np.array([[tuple(point) == cell for point in points] for cell in cells], float)  # splat
    steps = np.abs(np.array(cells)[:, None] - np.array(cells)[None]).sum(-1)
    B = np.where(steps == 0, 10.0, np.where(steps == 1, 1.0, 0.0))
    mass, n = S.sum(1), np.ones(len(cells))
    for _ in range(2000):
        n = np.sqrt(n * mass / (B @ n))
    W = S.T @ np.diag(n / mass) @ B @ np.diag(n / mass) @ S
    assert np.abs(W.sum(1) - 1).max() < 1e-6  # bistochastic
    energy = r.smoothness * (np.diag(W.sum(1)) - W) + np.eye(len(points))
    return S.T @ np.linalg.solve(S @ energy @ S.T, S @ pixels(p))


@pytest.mark.parametrize(
    "options", [{}, {"sigma_spatial": 2.5, "sigma_luma": 30, "sigma_chroma": 25, "smoothness": 20}]
)
def test_the_bilateral_solver_is_the_minimum_of_its_energy(options):
    p, image = case()
    r = BilateralSolver(**options)
    assert np.abs(pixels(r(p, image)) - solver_by_hand(p, image, r)).max() < 1e-4


def diffusion_by_hand(p, image, r):
    _, height, width = p.shape
    p, image = p.double().numpy(), image.double().numpy()
    for _ in range(r.steps):
        before = p.copy()
        for y, x in itertools.product(range(height), range(width)):
            for j, i in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= j < height and 0 <= i < width:
                    S = np.exp(-((image[:, j, i] - image[:, y, x]) ** 2).sum() / (6 * r.scale**2))
                    p[:, y, x] += r.step * S * (before[:, j, i] - before[:, y, x])
    return p


@pytest.mark.parametrize("options", [{"steps": 7, "scale": 0.1}, {"steps": 3, "step": 0.1, "scale": 0.5}])
def test_score_diffusion_is_its_steps_pixel_by_pixel(options):
    p, image = case(9, 11)
    r = ScoreDiffusion(**options)
    torch.testing.assert_close(r(p, image), torch.from_numpy(diffusion_by_hand(p, image, r)).float(), rtol=0, atol=1e-6)


def test_score_diffusion_takes_its_scale_from_the_image():
    p, image = case()
    assert not torch.allclose(ScoreDiffusion(scale=0.1)(p, image), ScoreDiffusion(scale=0.1)(p, image * 0.5), atol=1e-3)
    torch.testing.assert_close(ScoreDiffusion()(p, image), ScoreDiffusion()(p, image * 0.5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("word", ["crf", "guided", "bilateral", "diffusion"])
class TestEach:
    def test_the_scores_of_a_pixel_add_up_to_1(self, word):
        p, image = case()
        total = refine(p, image, word, kind="probabilities").sum(0)
        torch.testing.assert_close(total, torch.ones(14, 18), atol=1e-4, rtol=0)

    def test_constant_probabilities_stay(self, word):
        _, image = case()
        p = torch.tensor([0.5, 0.3, 0.2])[:, None, None].expand(3, 14, 18)
        refined = refine(p, image, word, kind="probabilities")
        assert refined.isfinite().all() and (refined.argmax(0) == 0).all()
        if word != "crf":  # whose prior is that pixels agree: the larger probability grows
            torch.testing.assert_close(refined, p.contiguous(), atol=1e-4, rtol=0)

    @pytest.mark.parametrize("image", [torch.zeros(3, 14, 18), torch.ones(3, 14, 18)])
    def test_a_flat_image_gives_finite_scores(self, word, image):
        assert refine(case()[0], image, word, kind="probabilities").isfinite().all()

    @pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 1)])
    def test_the_smallest_images_are_refined(self, word, size):
        scores = torch.randn(2, *size)
        refined = refine(scores, torch.rand(3, *size), word)
        assert refined.shape == scores.shape and refined.isfinite().all()

    def test_probabilities_of_0_and_1_and_a_single_class_are_refined(self, word):
        _, image = case()
        sure = torch.stack([torch.ones(14, 18), torch.zeros(14, 18)])
        assert (refine(sure, image, word, kind="probabilities").argmax(0) == 0).all()
        assert refine(torch.randn(1, 14, 18), image, word).isfinite().all()

    def test_a_displaced_border_is_pulled_to_the_images(self, word):
        """Two colours, and scores whose border is two pixels off: more labels are right than before."""
        image = torch.full((3, 30, 40), 0.2)
        image[:, :, 20:] = 0.8
        logits = torch.zeros(2, 30, 40)
        logits[0, :, :22], logits[1, :, 22:] = 1.0, 1.0
        truth = (torch.arange(40) >= 20).expand(30, 40).long()
        options = ":steps=100,scale=0.1" if word == "diffusion" else ""
        labels = refine(logits, image, word + options).argmax(0)
        assert (labels == truth).float().mean() > (logits.argmax(0) == truth).float().mean()
