"""The update of a weight as one kernel: on a GPU a step of the MLP costs what launching its kernels costs.

Keras's optimizers launch about ten for each weight.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf


class FusedUpdates:
    """Takes a Keras optimizer's step by TensorFlow's fused kernels, with the optimizer's own variables.

    Nadam has no such kernel and takes its step itself.

    Args:
        optimizer: Adam, RMSprop without momentum, SGD with Nesterov momentum or Nadam, built for the variables.
        variables: What is trained.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> None:
        self._optimizer, self._variables = optimizer, variables
        # RMSprop's kernel wants a place for a momentum, which is 0 here.
        with_momentum = isinstance(optimizer, keras.optimizers.RMSprop)
        self._unused = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in variables if with_momentum]

    def apply(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        """Take a step.

        Args:
            gradients: One for each variable, of its shape, float32.
            rate: Learning rate, a float32 scalar.
        """
        optimizer = self._optimizer
        match optimizer:
            case keras.optimizers.Adam():
                step = tf.cast(optimizer.iterations.value, tf.float32) + 1
                powers = {
                    "beta1_power": tf.pow(optimizer.beta_1, step),
                    "beta2_power": tf.pow(optimizer.beta_2, step),
                }
                for var, m, v, grad in self._slots(gradients, optimizer._momentums, optimizer._velocities):
                    tf.raw_ops.ResourceApplyAdam(
                        var=var,
                        m=m,
                        v=v,
                        grad=grad,
                        lr=rate,
                        beta1=optimizer.beta_1,
                        beta2=optimizer.beta_2,
                        epsilon=optimizer.epsilon,
                        **powers,
                    )
            case keras.optimizers.RMSprop():
                for (var, ms, grad), mom in zip(
                    self._slots(gradients, optimizer._velocities), self._unused, strict=True
                ):
                    tf.raw_ops.ResourceApplyRMSProp(
                        var=var,
                        ms=ms,
                        mom=mom.handle,
                        grad=grad,
                        lr=rate,
                        rho=optimizer.rho,
                        momentum=0.0,
                        epsilon=optimizer.epsilon,
                    )
            case keras.optimizers.SGD():
                for var, accum, grad in self._slots(gradients, optimizer.momentums):
                    tf.raw_ops.ResourceApplyKerasMomentum(
                        var=var, accum=accum, grad=grad, lr=rate, momentum=optimizer.momentum, use_nesterov=True
                    )
            case _:
                optimizer.apply(gradients, self._variables)
                return
        optimizer.iterations.assign_add(1)

    def _slots(self, gradients: Sequence[tf.Tensor], *slots: Sequence[keras.Variable]) -> list[tuple[tf.Tensor, ...]]:
        """Return the handles of each variable and of its slots, and its gradient."""
        handles = [[kept.value.handle for kept in many] for many in (self._variables, *slots)]
        return list(zip(*handles, gradients, strict=True))
