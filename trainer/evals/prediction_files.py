"""A file of predictions, in Parquet: what a run keeps of its test, so that runs can be compared example by example.

Columns, a row for each example of the split:
  id         string              the example's id as JSON: its row's number, or its file's path
  label      int32 or float32    the class's index, or the number; of several labels, a list of bool [C]
  predicted  like label          what was predicted
  scores     list of float32 [C] the probabilities; the predicted number alone for regression
  loss       float32
The file's metadata has, under the key "hubtune", the JSON of PredictionSource.
"""

import dataclasses
import io
import json
from typing import Any

import numpy as np

from trainer.errors import Problem, UserError
from trainer.evals.metrics import Predictions
from trainer.storage import fs

_METADATA_KEY = b"hubtune"


@dataclasses.dataclass(frozen=True)
class PredictionSource:
    """What the predictions are of."""

    data_fingerprint: str
    split: str
    kind: str  # Of the manifest.
    labels: tuple[str, ...]  # Class names by index. Empty for regression.


@dataclasses.dataclass(frozen=True)
class KeptPredictions:
    source: PredictionSource
    ids: tuple[str, ...]  # As JSON.
    labels: np.ndarray  # int32 or float32 [N], or bool [N, C]
    predicted: np.ndarray  # Like labels.
    losses: np.ndarray  # float32 [N]

    @property
    def right(self) -> np.ndarray:
        """Whether exactly the label was predicted, or exactly the labels: bool [N]. It says nothing of numbers."""
        equal: np.ndarray = np.equal(self.labels, self.predicted).reshape(len(self.ids), -1).all(axis=1)
        return equal


def write_predictions(path: str, predictions: Predictions, source: PredictionSource) -> None:
    """Write the file. It appears complete or not at all."""
    import pyarrow
    import pyarrow.parquet

    def lists(values: np.ndarray) -> Any:
        return pyarrow.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1]) if values.ndim == 2 else values

    columns: dict[str, Any] = {
        "id": [json.dumps(each) for each in predictions.ids],
        "label": lists(predictions.labels),
        "predicted": lists(predictions.predicted),
        "scores": lists(predictions.scores.astype(np.float32)),
        "loss": predictions.losses,
    }
    table = pyarrow.table(columns)
    table = table.replace_schema_metadata({_METADATA_KEY: json.dumps(dataclasses.asdict(source)).encode()})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    fs.write_bytes(path, buffer.getvalue())


def read_predictions(path: str) -> KeptPredictions:
    """Read the file. Raises UserError if it is none."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(
            io.BytesIO(fs.read_bytes(path)), columns=["id", "label", "predicted", "loss"]
        )
        content = json.loads(table.schema.metadata[_METADATA_KEY])
        source = PredictionSource(**{**content, "labels": tuple(content["labels"])})
    except (pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
        received = f"one that does not parse ({type(error).__name__})"
        raise UserError(Problem(path, "be a file of predictions as a run writes it", received)) from None
    columns = (table[name].to_numpy() for name in ("label", "predicted", "loss"))
    label, predicted, loss = (np.stack(column) if column.dtype == object else column for column in columns)
    return KeptPredictions(source, tuple(table["id"].to_pylist()), label, predicted, loss)
