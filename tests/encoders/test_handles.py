import pytest

from trainer.encoders import handles, registry
from trainer.errors import UsageError

TFHUB_URL = "https://tfhub.dev/tensorflow/small_bert/bert_en_uncased_L-4_H-512_A-8/1"
KAGGLE_PATH = "tensorflow/bert/tensorFlow2/bert-en-uncased-l-4-h-512-a-8/1"


@pytest.mark.parametrize(
    "text",
    [
        TFHUB_URL,
        TFHUB_URL + "/",
        TFHUB_URL.replace("https://", "http://"),
        TFHUB_URL.replace("https://", "HTTPS://"),
        TFHUB_URL.removeprefix("https://"),
        TFHUB_URL.replace("tfhub.dev", "www.TFHub.dev"),
        TFHUB_URL + "?tf-hub-format=compressed",
        TFHUB_URL + "/?tf-hub-format=compressed#top",
        TFHUB_URL.replace("/tensorflow", "//tensorflow"),
    ],
)
def test_a_model_of_the_hub_has_one_normal_form(text):
    path = "tensorflow/small_bert/bert_en_uncased_L-4_H-512_A-8/1"
    assert handles.parse_handle(text, "--encoder") == handles.Handle("tfhub.dev", path, TFHUB_URL)


@pytest.mark.parametrize(
    "text",
    [
        KAGGLE_PATH,
        KAGGLE_PATH + "/",
        KAGGLE_PATH.replace("tensorFlow2", "TensorFlow2"),
        KAGGLE_PATH.replace("tensorFlow2", "tensorflow2"),
        KAGGLE_PATH.replace("bert-en", "BERT-en").replace("tensorflow/", "TensorFlow/"),
        f"https://www.kaggle.com/models/{KAGGLE_PATH}",
        f"http://kaggle.com/models/{KAGGLE_PATH}",
        f"kaggle.com/models/{KAGGLE_PATH}/",
        f"www.kaggle.com/{KAGGLE_PATH}",
        f"https://www.kaggle.com/models/{KAGGLE_PATH}?tfhub-redirect=true",
        "https://kaggle.com/models/tensorflow/bert/frameworks/TensorFlow2/variations/bert-en-uncased-l-4-h-512-a-8"
        "/versions/1",
    ],
)
def test_a_model_of_kaggle_has_one_normal_form(text):
    url = f"https://www.kaggle.com/models/{KAGGLE_PATH}"
    assert handles.parse_handle(text, "--encoder") == handles.Handle("kaggle.com", KAGGLE_PATH, url)


@pytest.mark.parametrize(
    "text",
    [
        TFHUB_URL[:-1] + "2",
        TFHUB_URL.replace("bert_en", "BERT_en"),
        TFHUB_URL.replace("tfhub.dev", "tfhub.example.org"),
        KAGGLE_PATH[:-1] + "2",
    ],
)
def test_another_model_has_another_normal_form(text):
    normal = {handles.parse_handle(each, "--encoder") for each in (text, TFHUB_URL, KAGGLE_PATH)}
    assert len(normal) == 3


def test_an_address_of_another_server_stays_as_it_is():
    text = "https://models.example.org:8443/bert/1.tar.gz?signature=a/b"
    handle = handles.parse_handle(text, "--encoder")
    assert handle.url == text
    assert handle.mirror_folder == "models.example.org%3A8443/bert/1.tar.gz%3Fsignature%3Da/b"


@pytest.mark.parametrize(
    "text", ["minilm", "encoders/minilm", "small_bert/bert_en_uncased_L-4_H-512_A-8", "a/b/c/d/1", "gs://b/a/1", ""]
)
def test_a_name_or_folder_is_no_handle(text):
    assert handles.parse_handle(text, "--encoder") is None


@pytest.mark.parametrize(
    ("text", "advised"),
    [
        (KAGGLE_PATH.removesuffix("/1"), True),
        ("https://www.kaggle.com/models/tensorflow/bert/TensorFlow2/bert-en-uncased-l-4-h-512-a-8", True),
        ("https://www.kaggle.com/models/keras/bert/keras/bert_tiny_en_uncased/2", False),
        ("https://www.kaggle.com/models/tensorflow/bert", False),
        ("https://www.kaggle.com/datasets/owner/name", False),
    ],
)
def test_what_is_no_version_of_a_model_on_kaggle_is_refused(text, advised):
    with pytest.raises(UsageError) as caught:
        handles.parse_handle(text, "--preprocess")
    (problem,) = caught.value.problems
    assert problem.setting == "--preprocess"
    assert problem.received == text
    assert ("version" in problem.advice) is advised


def test_the_handles_of_the_table_are_in_normal_form():
    for known in registry.ENCODERS.values():
        for url in (known.encoder, known.preprocess):
            assert handles.parse_handle(url, "--encoder").url == url
