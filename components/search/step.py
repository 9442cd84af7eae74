"""The search step runs one worker of one study."""

from pathlib import Path
from typing import Any

from components.data.contract import TrainData
from components.models.contract import ApproachModule
from components.parameters import SearchSettings
from components.runtime import gpu_is_required
from components.search.tables import trials_markdown
from components.search.worker.worker import run_worker


def study_name(run: dict[str, Any], dataset: str, approach: str) -> str:
    """Return the name of a run's study under the study root."""
    return f"{run['study_prefix']}-{dataset}-{approach}"


def search_step(
    approach: ApproachModule,
    train_path: str,
    run: dict[str, Any],
    search: dict[str, Any],
    worker: str,
    overview_path: str,
) -> int:
    """Work on a study until it is finished, by this worker or another.

    Args:
        approach: `components.models.mlp.training` or `components.models.resnet18.training`.
        train_path: Directory of `train_data`.
        run: `study_root` and `study_prefix` as the plan fixed them.
        search: `SearchSettings` as a struct.
        worker: This worker's name.
        overview_path: File for the study's table as Markdown.

    Returns:
        How many trials the study has.
    """
    data = TrainData.load(train_path)
    ledger = run_worker(
        study_root=run["study_root"],
        name=study_name(run, data.info.name, approach.APPROACH),
        approach=approach,
        train_data=data,
        settings=SearchSettings.from_dict(search),
        worker=worker,
        require_gpu=gpu_is_required(),
    )
    Path(overview_path).write_text(f"# Study {ledger.name}\n\n{trials_markdown(ledger)}", encoding="utf-8")
    return len(ledger.trials)
