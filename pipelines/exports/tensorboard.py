"""TensorBoard gets a study as scores by epoch and as an HParams dashboard.

Events are written with TensorBoard's own records and protocol buffers. Its writers would import TensorFlow where that is installed,
and TensorFlow must not meet torch in one process.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf import struct_pb2
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from components.errors import file_error
from components.models.space import Parameter, Value
from components.search.tables import space_of
from components.search.trial import Ledger, Trial

SCORE = "validation_accuracy"
STATUS = {
    "completed": "STATUS_SUCCESS",
    "pruned": "STATUS_SUCCESS",
    "diverged": "STATUS_FAILURE",
    "failed": "STATUS_FAILURE",
}
"""Of finished trials; any other is running."""


def export_tensorboard(ledger: Ledger, directory: Path) -> None:
    """Write a study below a directory: `<study>/` says what was searched, `<study>/trial-00017/` what a trial reached.

    Written again, the files of before are replaced.

    Args:
        ledger: The study, finished or not.
        directory: TensorBoard's `--logdir`.

    Raises:
        StorageError: It cannot be written.
    """
    study = directory / ledger.name
    now = time.time()
    parameters = space_of(ledger).parameters
    experiment = api_pb2.Experiment(
        name=ledger.name,
        time_created_secs=now,
        hparam_infos=[_hparam(p) for p in parameters],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=SCORE), display_name="validation accuracy")],
    )
    data = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    try:
        _write(study, [_plugin_event(now, metadata.EXPERIMENT_TAG, data)])
        for trial in ledger.trials:
            _write(study / f"trial-{trial.number:05d}", _events(trial, ledger, now))
    except OSError as error:
        raise file_error(error, "must be a folder that can be written", f"--tensorboard {directory}") from error


def _events(trial: Trial, ledger: Ledger, now: float) -> Iterable[Event]:
    name = f"{ledger.name}/{trial.number:05d}"
    start = plugin_data_pb2.SessionStartInfo(group_name=name, model_uri=trial.reused_from, start_time_secs=now)
    for key, value in trial.hyperparameters.items():
        start.hparams[key].CopyFrom(_value(value))
    yield _plugin_event(
        now, metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=start)
    )
    for epoch, score in enumerate(trial.scores, 1):
        summary = Summary(value=[Summary.Value(tag=SCORE, simple_value=score)])
        yield Event(wall_time=now + trial.device_seconds * epoch / trial.epochs, step=epoch, summary=summary)
    if trial.is_finished:
        end = plugin_data_pb2.SessionEndInfo(
            status=getattr(api_pb2, STATUS[trial.status]), end_time_secs=now + trial.device_seconds
        )
        data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
        yield _plugin_event(now + trial.device_seconds, metadata.SESSION_END_INFO_TAG, data)


def _plugin_event(when: float, tag: str, data: plugin_data_pb2.HParamsPluginData) -> Event:
    value = Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR)
    return Event(wall_time=when, summary=Summary(value=[value]))


def _hparam(parameter: Parameter) -> api_pb2.HParamInfo:
    if parameter.choices:
        kind = {bool: "DATA_TYPE_BOOL", str: "DATA_TYPE_STRING"}.get(type(parameter.choices[0]), "DATA_TYPE_FLOAT64")
        domain: dict[str, Any] = {
            "domain_discrete": struct_pb2.ListValue(values=[_value(choice) for choice in parameter.choices])
        }
    else:
        kind = "DATA_TYPE_FLOAT64"
        domain = {"domain_interval": api_pb2.Interval(min_value=float(parameter.low), max_value=float(parameter.high))}
    return api_pb2.HParamInfo(name=parameter.name, type=getattr(api_pb2, kind), **domain)


def _value(value: Value) -> struct_pb2.Value:
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    return struct_pb2.Value(string_value=value) if isinstance(value, str) else struct_pb2.Value(number_value=value)


def _write(directory: Path, events: Iterable[Event]) -> None:
    """Write one file of events; TensorBoard reads whatever has `tfevents` in its name."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "events.out.tfevents.study").open("wb") as file:
        writer = RecordWriter(file)
        for event in (Event(wall_time=time.time(), file_version="brain.Event:2"), *events):
            writer.write(event.SerializeToString())
        writer.flush()
