"""An export, loaded once for many predictions: texts in, labels and scores out. TensorFlow is imported by loading."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What an export says of a text. A blank text has no label and no scores, since the model would make some up."""

    text: str | tuple[str, ...]  # The text, or the two of a pair.
    label: str | None = None  # Its class. None of numbers, and where a text may have several labels.
    labels: list[str] | None = None  # Where a text may have several: its own, by falling score.
    scores: dict[str, float] | None = None  # The probability of each class. None of numbers.
    score: float | None = None  # The number that is predicted, in the unit of the labels.


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A loaded export. It may be used any number of times, and in several threads."""

    folder: str  # That it was loaded from.
    inputs: tuple[str, ...]  # text, and text_pair for a model of pairs.
    labels: tuple[str, ...]  # The classes, in the order of the scores. Empty for regression.
    several_labels: bool  # Whether a text may have several of the classes.
    saved: Any = dataclasses.field(repr=False)  # The SavedModel, which the signature needs alive.
    signature: Any = dataclasses.field(repr=False)  # string [batch] to {"scores": float32 [batch, classes], ...}

    def predict(self, texts: Iterable[str | Sequence[str]]) -> list[Prediction]:
        """A prediction for each text, in their order; of a model of pairs, for each pair, a list or tuple of two.

        Texts of similar length are scored together. Raises UserError, before anything is scored, with the first of
        those that are no texts.
        """
        from trainer.export import predict, prediction_inputs, prediction_outputs

        given = texts if isinstance(texts, str) else list(texts)
        if given == []:
            return []
        source = prediction_inputs.list_source(given, self.inputs)
        prediction_inputs.inspect_source(source)
        shown = prediction_outputs.Shown(self.labels, None, False, self.several_labels)
        return [
            Prediction(
                each.texts[0] if len(each.texts) == 1 else tuple(each.texts),
                **prediction_outputs.to_values(each, shown),
            )
            for each in predict.predict_source(self.signature, source)
        ]


def load_classifier(folder: str) -> Classifier:
    """Raises UserError as predict.load_export does."""
    from trainer.export import predict

    saved, signature = predict.load_export(folder)
    inputs, labels = predict.input_names(signature), predict.class_names(saved)
    return Classifier(folder, tuple(inputs), tuple(labels), predict.has_several_labels(signature), saved, signature)
