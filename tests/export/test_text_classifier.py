import concurrent.futures

import pytest
import tensorflow as tf
from helpers import score_texts

from trainer.errors import UserError
from trainer.export import text_classifier
from trainer.export.text_classifier import Prediction


@pytest.fixture(scope="module")
def classifier(finished_run):
    return text_classifier.load_classifier(str(finished_run / "export"))


def test_an_export_tells_what_it_takes_and_gives(classifier, points_run):
    assert (classifier.inputs, classifier.labels) == (("text",), ("negative", "positive"))
    assert not classifier.several_labels
    assert text_classifier.load_classifier(str(points_run / "export")).labels == ()


def test_a_prediction_has_the_label_and_the_scores_of_the_export(classifier):
    texts = ["a wonderful film", "an awful, awful film", "dull"]
    found = classifier.predict(iter(texts))
    assert [each.text for each in found] == texts
    expected = score_texts(classifier.signature, texts)
    for each, scores in zip(found, expected, strict=True):
        assert list(each.scores.values()) == scores.tolist()
        assert each.label == max(each.scores, key=each.scores.get)
        assert (each.labels, each.score) == (None, None)


def test_numbers_are_predicted_in_their_own_unit(points_run):
    (found,) = text_classifier.load_classifier(str(points_run / "export")).predict(["a brilliant film"])
    assert 75 < found.score < 105
    assert (found.label, found.labels, found.scores) == (None, None, None)


def test_a_model_of_pairs_may_give_each_several_labels(tmp_path):
    module = tf.Module()
    module.names = tf.Variable(["short", "long"])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name) for name in ("text", "text_pair")])
    def serve(text, text_pair):
        first, second = (tf.cast(tf.strings.length(part), tf.float32) / 10 for part in (text, text_pair))
        scores = tf.stack([first, second], axis=1)
        return {"scores": scores, "labels": tf.where(scores > 0.2, module.names[tf.newaxis], "")}

    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": serve})
    loaded = text_classifier.load_classifier(str(tmp_path))
    assert (loaded.inputs, loaded.labels, loaded.several_labels) == (("text", "text_pair"), ("short", "long"), True)
    both, neither = loaded.predict([("four", "eleven and"), ["a", "b"]])
    assert (both.text, both.labels, both.label) == (("four", "eleven and"), ["long", "short"], None)
    assert both.scores == pytest.approx({"short": 0.4, "long": 1.0})
    assert (neither.text, neither.labels) == (("a", "b"), [])
    with pytest.raises(UserError, match="text 1: 'one', which is not two texts"):
        loaded.predict(["one"])


def test_every_text_has_a_prediction_and_a_blank_one_an_empty_one(classifier, caplog):
    found = classifier.predict(["superb", " ", "dreadful"])
    assert found[1] == Prediction(" ")
    assert [each.label is None for each in found] == [False, True, False]
    assert "1 of 3 texts are blank and have no prediction: text 2." in caplog.text
    assert classifier.predict([]) == []


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ("a text", "texts must be a list of texts. Received: 'a text'."),
        (["a", 5, None, ("a", "b")], "3 that cannot: text 2: 5, which is not a text; text 3: None, "),
        (["\ud800"], "text 1: characters that are not of Unicode"),
    ],
)
def test_what_is_no_list_of_texts_is_refused_with_its_place(classifier, texts, words):
    with pytest.raises(UserError) as caught:
        classifier.predict(texts)
    assert words in str(caught.value)


def test_several_threads_may_use_one_classifier(classifier):
    texts = [f"a film of {number} houses" for number in range(40)]
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        found = list(executor.map(classifier.predict, [texts] * 4))
    assert [[each.label for each in one] for one in found] == [[each.label for each in classifier.predict(texts)]] * 4
