"""How a step changes the weights: by Keras's own optimizer, or by one or two of TensorFlow's kernels for each weight.

On a GPU a step of the MLP costs what launching its kernels costs, and Keras's optimizers launch about ten for each weight.
"""

from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf


class KerasUpdates:
    """Takes steps as Keras does.

    Args:
        optimizer: Any optimizer, not yet built.
        variables: What is trained.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> None:
        self.optimizer, self._variables = optimizer, variables
        optimizer.build(variables)
        # Not all zeros: Nadam starts a product at one.
        self._fresh_scalars = [variable.numpy() for variable in optimizer.variables if not variable.ndim]

    def reset(self) -> None:
        """Start a training."""
        scalars = iter(self._fresh_scalars)
        for variable in self.optimizer.variables:
            variable.assign(tf.zeros_like(variable) if variable.ndim else next(scalars))

    def rows(self, rates: np.ndarray) -> np.ndarray:
        """Return what each of the next steps needs to know; here the rates, for the optimizer counts by itself.

        Args:
            rates: (steps,) float32 learning rates.

        Returns:
            (steps, k) float32, a row for each step; k depends on the optimizer.
        """
        return rates[:, None]

    def apply(self, gradients: Sequence[tf.Tensor], row: Sequence[tf.Tensor]) -> None:
        """Take a step.

        Args:
            gradients: One for each variable, of its shape, float32.
            row: The k float32 scalars of this step.
        """
        self.optimizer.learning_rate.assign(row[0])
        self.optimizer.apply(gradients, self._variables)


class FusedUpdates(KerasUpdates):
    """Takes the same steps by fused kernels, with the optimizer's own variables: what depends on the step alone is computed on the host.

    Args:
        optimizer: Adam, Nadam, RMSprop without momentum or SGD with Nesterov momentum, not yet built.
        variables: What is trained.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> None:
        super().__init__(optimizer, variables)
        # Kernels write a momentum where the optimizer has none.
        needed = isinstance(optimizer, keras.optimizers.RMSprop | keras.optimizers.Nadam)
        self._ignored = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in variables if needed]

    def reset(self) -> None:
        """Start a training: one that diverged leaves values that are no numbers even where they count nothing."""
        super().reset()
        for variable in self._ignored:
            variable.assign(tf.zeros_like(variable))

    def rows(self, rates: np.ndarray) -> np.ndarray:
        """Return the rates, corrected for the bias of Adam's and Nadam's means; Nadam's rows are described at `_nadam_rows`.

        The steps count as taken.
        """
        own = self.optimizer
        steps = float(own.iterations.numpy()) + np.arange(1, len(rates) + 1)
        exact = rates.astype(np.float64)
        match own:
            case keras.optimizers.Adam():
                rows = (exact * np.sqrt(1 - own.beta_2**steps) / (1 - own.beta_1**steps))[:, None]
            case keras.optimizers.Nadam():
                rows = self._nadam_rows(exact, steps)
            case _:
                rows = exact[:, None]
        own.learning_rate.assign(rates[-1])
        own.iterations.assign_add(len(rates))
        return rows.astype(np.float32)

    def apply(self, gradients: Sequence[tf.Tensor], row: Sequence[tf.Tensor]) -> None:
        """Take a step; see `KerasUpdates.apply`."""
        match self.optimizer:
            case keras.optimizers.Adam():
                self._adam(gradients, *row)
            case keras.optimizers.Nadam():
                self._nadam(gradients, *row)
            case keras.optimizers.RMSprop():
                self._rmsprop(gradients, *row)
            case keras.optimizers.SGD():
                self._sgd(gradients, *row)

    def _adam(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        own = self.optimizer
        # Powers of zero leave the rate as it is: it is corrected already.
        scalars = {"beta1_power": 0.0, "beta2_power": 0.0, "lr": rate}
        scalars |= {"beta1": own.beta_1, "beta2": own.beta_2, "epsilon": own.epsilon}
        for var, m, v, grad in self._each(gradients, own._momentums, own._velocities):
            tf.raw_ops.ResourceApplyAdam(var=var, m=m, v=v, grad=grad, **scalars)

    def _nadam_rows(self, rates: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Return the rate of the momentum, the rate of the gradient, and epsilon.

        Source: Dozat 2016, Incorporating Nesterov Momentum into Adam, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
        """
        own = self.optimizer
        now, following = (own.beta_1 * (1 - 0.5 * 0.96 ** (steps + n)) for n in (0, 1))
        products = float(own._u_product.numpy()) * np.cumprod(now)
        own._u_product.assign(products[-1])
        # The root of the corrected velocity is the root of the velocity over `roots`.
        roots = np.sqrt(1 - own.beta_2**steps)
        by_momentum = rates * roots * following / (1 - products * following)
        by_gradient = rates * roots * (1 - now) / (1 - products)
        return np.stack([by_momentum, by_gradient, own.epsilon * roots], axis=1)

    def _nadam(
        self, gradients: Sequence[tf.Tensor], by_momentum: tf.Tensor, by_gradient: tf.Tensor, epsilon: tf.Tensor
    ) -> None:
        """Move by the momentum, then by the gradient, both over the same root: two of Adam's steps."""
        own = self.optimizer
        shared = {"beta1_power": 0.0, "beta2_power": 0.0, "epsilon": epsilon}
        each = self._each(gradients, own._momentums, own._velocities, self._ignored)
        for var, m, v, ignored, grad in each:
            tf.raw_ops.ResourceApplyAdam(
                var=var, m=m, v=v, grad=grad, lr=by_momentum, beta1=own.beta_1, beta2=own.beta_2, **shared
            )
            # The momentum becomes the gradient, the velocity stays what it is.
            tf.raw_ops.ResourceApplyAdam(
                var=var, m=ignored, v=v, grad=grad, lr=by_gradient, beta1=0.0, beta2=1.0, **shared
            )

    def _rmsprop(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        own = self.optimizer
        scalars = {"lr": rate, "rho": own.rho, "momentum": 0.0, "epsilon": own.epsilon}
        for var, ms, ignored, grad in self._each(gradients, own._velocities, self._ignored):
            tf.raw_ops.ResourceApplyRMSProp(var=var, ms=ms, mom=ignored, grad=grad, **scalars)

    def _sgd(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        scalars = {"lr": rate, "momentum": self.optimizer.momentum, "use_nesterov": True}
        for var, accum, grad in self._each(gradients, self.optimizer.momentums):
            tf.raw_ops.ResourceApplyKerasMomentum(var=var, accum=accum, grad=grad, **scalars)

    def _each(
        self, gradients: Sequence[tf.Tensor], *slots: Sequence[keras.Variable | tf.Variable]
    ) -> Iterator[tuple[tf.Tensor, ...]]:
        """Return the handles of each variable and of its slots, and its gradient."""
        for variable, *kept, gradient in zip(self._variables, *slots, gradients, strict=True):
            own = [v.value if isinstance(v, keras.Variable) else v for v in (variable, *kept)]
            yield (*(v.handle for v in own), gradient)
