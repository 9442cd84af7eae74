"""The update of a weight as one kernel or two: on a GPU a step of the MLP costs what launching its kernels costs.

Keras's optimizers launch about ten for each weight.
"""

from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf


class FusedUpdates:
    """Takes a Keras optimizer's step by TensorFlow's fused kernels, with the optimizer's own variables.

    Args:
        optimizer: Adam, Nadam, RMSprop without momentum or SGD with Nesterov momentum, built for the variables.
        variables: What is trained.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> None:
        self._optimizer, self._variables = optimizer, variables
        # Kernels write a momentum where the optimizer has none.
        needed = isinstance(optimizer, keras.optimizers.RMSprop | keras.optimizers.Nadam)
        self._ignored = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in variables if needed]

    def reset(self) -> None:
        """Start a training: a training that diverged leaves values that are no numbers even where they count nothing."""
        for variable in self._ignored:
            variable.assign(tf.zeros_like(variable))

    def apply(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        """Take a step.

        Args:
            gradients: One for each variable, of its shape, float32.
            rate: Learning rate, a float32 scalar.
        """
        match self._optimizer:
            case keras.optimizers.Adam():
                self._adam(gradients, rate)
            case keras.optimizers.Nadam():
                self._nadam(gradients, rate)
            case keras.optimizers.RMSprop():
                self._rmsprop(gradients, rate)
            case keras.optimizers.SGD():
                self._sgd(gradients, rate)
        self._optimizer.iterations.assign_add(1)

    def _adam(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        own, step = self._optimizer, self._step()
        powers = {"beta1_power": tf.pow(own.beta_1, step), "beta2_power": tf.pow(own.beta_2, step)}
        scalars = powers | {"lr": rate, "beta1": own.beta_1, "beta2": own.beta_2, "epsilon": own.epsilon}
        for var, m, v, grad in self._each(gradients, own._momentums, own._velocities):
            tf.raw_ops.ResourceApplyAdam(var=var, m=m, v=v, grad=grad, **scalars)

    def _nadam(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        """Move by the momentum, then by the gradient, both over the same root: two of Adam's steps.

        Source: Dozat 2016, Incorporating Nesterov Momentum into Adam, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
        """
        own, step = self._optimizer, self._step()
        now, following = (own.beta_1 * (1 - 0.5 * tf.pow(0.96, step + n)) for n in (0.0, 1.0))
        product = own._u_product
        product.assign(product.value * now)
        # The root of the corrected velocity is the root of the velocity over `root`.
        root = tf.sqrt(1 - tf.pow(own.beta_2, step))
        shared = {"beta1_power": 0.0, "beta2_power": 0.0, "epsilon": own.epsilon * root}
        by_momentum = shared | {"lr": rate * root * following / (1 - product.value * following)}
        by_gradient = shared | {"lr": rate * root * (1 - now) / (1 - product.value)}
        each = self._each(gradients, own._momentums, own._velocities, self._ignored)
        for var, m, v, ignored, grad in each:
            tf.raw_ops.ResourceApplyAdam(
                var=var, m=m, v=v, grad=grad, beta1=own.beta_1, beta2=own.beta_2, **by_momentum
            )
            # The momentum becomes the gradient, the velocity stays what it is.
            tf.raw_ops.ResourceApplyAdam(var=var, m=ignored, v=v, grad=grad, beta1=0.0, beta2=1.0, **by_gradient)

    def _rmsprop(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        own = self._optimizer
        scalars = {"lr": rate, "rho": own.rho, "momentum": 0.0, "epsilon": own.epsilon}
        for var, ms, ignored, grad in self._each(gradients, own._velocities, self._ignored):
            tf.raw_ops.ResourceApplyRMSProp(var=var, ms=ms, mom=ignored, grad=grad, **scalars)

    def _sgd(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        scalars = {"lr": rate, "momentum": self._optimizer.momentum, "use_nesterov": True}
        for var, accum, grad in self._each(gradients, self._optimizer.momentums):
            tf.raw_ops.ResourceApplyKerasMomentum(var=var, accum=accum, grad=grad, **scalars)

    def _step(self) -> tf.Tensor:
        return tf.cast(self._optimizer.iterations.value, tf.float32) + 1

    def _each(
        self, gradients: Sequence[tf.Tensor], *slots: Sequence[keras.Variable | tf.Variable]
    ) -> Iterator[tuple[tf.Tensor, ...]]:
        """Return the handles of each variable and of its slots, and its gradient."""
        for variable, *kept, gradient in zip(self._variables, *slots, gradients, strict=True):
            own = [v.value if isinstance(v, keras.Variable) else v for v in (variable, *kept)]
            yield (*(v.handle for v in own), gradient)
