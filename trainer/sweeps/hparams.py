"""TensorBoard's HParams tab of a sweep: a session for each run, and a session group for each trial.

https://www.tensorflow.org/tensorboard/hyperparameter_tuning_with_hparams
"""

from collections.abc import Iterable, Sequence
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import api
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from trainer.storage import fs
from trainer.sweeps import results, trials
from trainer.sweeps.results import TrialState

FOLDER = "tensorboard"


def write_hparams(output: str, states: Sequence[TrialState], metric: str) -> None:
    """Replace the folder of events in `output`: the settings of each run, and its best validation metric and loss."""
    folder = fs.join(output, FOLDER)
    fs.remove(folder)
    local = fs.local_scratch(folder)
    tags = [f"validation/{name}" for name in dict.fromkeys((metric, "loss"))]
    keys = [api.HParam(key) for key in states[0].trial.settings]
    _write_summaries(local, [(0, api.hparams_config_pb(keys, [api.Metric(tag) for tag in tags]))])
    for each in states:
        for state in each.runs:
            best = results.best_evaluation(state, metric)
            if best is None:
                continue
            settings = {key: _plain(value) for key, value in each.trial.settings.items()}
            scalars = [(best["step"], _scalar(tag, best[tag.partition("/")[2]])) for tag in tags]
            session = fs.join(local, each.trial.name, f"seed_{state.run.seed}")
            _write_summaries(session, [(0, api.hparams_pb(settings, trial_id=each.trial.name)), *scalars])
    if local != folder:
        fs.copy_folder(local, folder)


def _plain(value: Any) -> bool | float | str:
    """A value that the plugin holds: an unset one is the word."""
    return trials.flag_values({"": value})[""] if value is None else value


def _scalar(tag: str, value: float) -> Any:
    return summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, simple_value=value)])


def _write_summaries(folder: str, summaries: Iterable[tuple[int, Any]]) -> None:
    """Write (step, Summary) as events."""
    writer = EventFileWriter(folder)
    for step, summary in summaries:
        writer.add_event(event_pb2.Event(step=step, summary=summary))
    writer.close()
