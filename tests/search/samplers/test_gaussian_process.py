import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor

from components.search.samplers.gaussian_process import QuickGaussianProcess


def draw(count, rng):
    """Points of which only the first coordinate matters, and values with noise of a tenth of their range."""
    points = rng.random((count, 4))
    return points, np.sin(6 * points[:, 0]) + 0.1 * rng.normal(size=count)


def test_quick_predictions_are_those_of_the_general_formula():
    """Mean and deviation equal scikit-learn's own, apart from the noise in the deviation."""
    rng = np.random.default_rng(0)
    model = QuickGaussianProcess(4).fit(*draw(30, rng))
    asked = rng.random((5, 4))
    mean, deviation = GaussianProcessRegressor.predict(model, asked, return_std=True)
    noise = model.kernel_.k2.noise_level * model._y_train_std**2
    found = model.predict(asked, return_std=True)

    np.testing.assert_allclose((mean, np.sqrt(deviation**2 - noise)), found, rtol=1e-6)


def test_it_learns_which_dimension_matters_and_how_noisy_values_are():
    """The dimension that matters gets the shortest scale, and the noise is found within a factor of two."""
    model = QuickGaussianProcess(4).fit(*draw(80, np.random.default_rng(0)))
    noise = np.sqrt(model.kernel_.k2.noise_level) * model._y_train_std

    assert 0 == np.argmin(model.kernel_.k1.k2.length_scale)
    assert 0.05 < noise < 0.2


def test_it_stays_finite_on_repeated_points_and_equal_values():
    """Points told twice, and values without any difference, are no obstacle."""
    points = np.repeat(np.random.default_rng(0).random((3, 2)), 4, axis=0)
    mean, deviation = QuickGaussianProcess(2).fit(points, np.full(12, 0.5)).predict(points[:1], return_std=True)

    np.testing.assert_allclose([0.5], mean)
    assert np.isfinite(deviation).all()
