"""TensorBoard's HParams tab of a sweep: a session for each run, and a session group for each trial.

https://www.tensorflow.org/tensorboard/hyperparameter_tuning_with_hparams
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import api
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from trainer.config import loading
from trainer.storage import fs
from trainer.sweeps import results
from trainer.sweeps.results import TrialState

FOLDER = "tensorboard"


def write_hparams(output: str, states: Sequence[TrialState], metric: str) -> None:
    """Replace the folder of events in `output`: the settings of each run, and its best validation metric and loss."""
    folder = fs.join(output, FOLDER)
    fs.remove(folder)
    local = fs.local_scratch(folder)
    tags = [f"validation/{name}" for name in dict.fromkeys((metric, "loss"))]
    shown = {key: _show_values([each.trial.settings[key] for each in states]) for key in states[0].trial.settings}
    keys = [api.HParam(key, api.Discrete(dict.fromkeys(values))) for key, values in shown.items()]
    _write_summaries(local, [(0, api.hparams_config_pb(keys, [api.Metric(tag) for tag in tags]))])
    for place, each in enumerate(states):
        for state in each.runs:
            best = results.best_evaluation(state, metric)
            if best is None:
                continue
            settings = {key: values[place] for key, values in shown.items()}
            scalars = [(best["step"], _scalar(tag, best[tag.partition("/")[2]])) for tag in tags]
            session = fs.join(local, each.trial.name, f"seed_{state.run.seed}")
            _write_summaries(session, [(0, api.hparams_pb(settings, trial_id=each.trial.name)), *scalars])
    if local != folder:
        fs.copy_folder(local, folder)


def _show_values(values: Sequence[Any]) -> list[Any]:
    """The values of a setting, of one type as the plugin requires: words if some are words or unset."""
    types = {float if isinstance(value, int) and not isinstance(value, bool) else type(value) for value in values}
    if types in ({bool}, {str}, {float}):
        return list(values)
    return [loading.format_value(value) for value in values]


def _scalar(tag: str, value: float) -> Any:
    return summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, simple_value=value)])


def _write_summaries(folder: str, summaries: Iterable[tuple[int, Any]]) -> None:
    """Write (step, Summary) as events."""
    writer = EventFileWriter(folder)
    for step, summary in summaries:
        writer.add_event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))
    writer.close()
