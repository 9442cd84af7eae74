"""A trainer that computes on the CPU in the loops that a GPU would use."""

from components.models.loop import complete
from components.models.mlp import training as mlp
from tests.models.examples import make_train_data

SHAPE = (12, 10, 1)

NETWORK = complete({"units_1": 16, "activation_1": "relu", "units_2": 8, "activation_2": "relu"}, mlp.RECIPE)


def shared_trainer() -> mlp.Trainer:
    """Return a trainer on 120 images whose networks share a loop."""
    trainer = mlp.Trainer(make_train_data(120, SHAPE))
    trainer._shared, trainer._half = True, False
    return trainer


def own_trainer() -> mlp.Trainer:
    """Return a trainer on the same images that gives each network a loop of its own and updates it by Keras's optimizers."""
    trainer = mlp.Trainer(make_train_data(120, SHAPE))
    trainer._half = False
    return trainer
