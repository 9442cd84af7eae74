"""Search quality at an equal budget: this project's samplers and pruning against random search, Optuna and skopt."""
