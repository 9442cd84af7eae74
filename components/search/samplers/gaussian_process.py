"""These changes keep Gaussian processes quick enough to be fitted anew for every suggestion."""

import warnings
from collections.abc import Callable

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

MAX_STEPS = 15
"""Of the climb to the kernel's best parameters; a step costs the cube of the number of points."""


def climb_briefly(objective: Callable, initial: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
    """Return parameters (d,) float64 and value: scikit-learn's optimizer of a kernel, stopped after `MAX_STEPS`."""
    minimum = minimize(objective, initial, method="L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": MAX_STEPS})
    return minimum.x, minimum.fun


class QuickGaussianProcess(GaussianProcessRegressor):
    """Matern 5/2 with a length scale per dimension, an amplitude and noise; predictions of single points are quick.

    Points lie between 0 and 1. The deviation is that of the function, without the noise.

    Args:
        num_dimensions: Columns of the points.
        seed: Seed of scikit-learn's generator, which a fit without restarts does not use.
    """

    def __init__(self, num_dimensions: int, seed: int = 0) -> None:
        self.num_dimensions = num_dimensions
        self.seed = seed
        # Lower bounds keep a scale from fitting the noise of a few points, upper ones from losing a parameter for good.
        scales = Matern(np.ones(num_dimensions), [(0.1, 20.0)] * num_dimensions, nu=2.5)
        super().__init__(
            ConstantKernel(1.0, (0.05, 20.0)) * scales + WhiteKernel(0.05, (1e-3, 1.0)),
            alpha=1e-8,
            optimizer=climb_briefly,
            normalize_y=True,
            random_state=seed,
        )

    def fit(self, X: np.ndarray, y: np.ndarray) -> "QuickGaussianProcess":  # noqa: N803 - scikit-learn's name
        """Fit to points (n, d) float64 and values (n,) float64."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound is no news to anybody
            super().fit(X, y)
        self._inverse = solve_triangular(self.L_, np.eye(len(self.L_)), lower=True).T
        self._amplitude, scales = self.kernel_.k1.k1.constant_value, self.kernel_.k1.k2.length_scale
        self._stretch = np.sqrt(5.0) / scales
        self._stretched = self.X_train_ * self._stretch
        return self

    def predict(self, X: np.ndarray, return_std: bool = False, return_cov: bool = False):  # noqa: N803
        """Return means (m,) float64, with `return_std` deviations (m,) as well, of points (m, d)."""
        if not return_std or return_cov or not hasattr(self, "X_train_"):
            return super().predict(X, return_std=return_std, return_cov=return_cov)
        steps = (X * self._stretch)[:, None, :] - self._stretched
        scaled = np.sqrt(np.einsum("mnd,mnd->mn", steps, steps))
        covariance = self._amplitude * (1.0 + scaled + scaled * scaled / 3.0) * np.exp(-scaled)
        mean = self._y_train_std * (covariance @ self.alpha_) + self._y_train_mean
        whitened = covariance @ self._inverse
        variance = self._amplitude - np.einsum("mn,mn->m", whitened, whitened)
        return mean, np.sqrt(np.maximum(variance, 1e-12)) * self._y_train_std
