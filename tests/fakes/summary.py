"""What evaluate and promote leave of a run in which ResNet18 wins."""

SUMMARY = {
    "schema": 1,
    "parameters": {"seed": 0},
    "datasets": {
        "fashion-mnist": {
            "data": {"hash": "0" * 64},
            "approaches": {
                approach: {
                    "accuracy": 0.9 + n / 100,
                    "accuracy_ci95": [0.89 + n / 100, 0.91 + n / 100],
                    "macro_f1": 0.9,
                    "device_seconds": {"search": 120.4, "train": 30.0},
                    "best_hyperparameters": {},
                }
                for n, approach in enumerate(("mlp", "resnet18"))
            },
            "comparison": {"winner": "resnet18", "verdict": "ResNet18 is better by 1.00 points."},
            "champion": {"decision": "better", "version": 2},
        }
    },
}
