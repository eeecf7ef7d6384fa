import shutil
import time
from pathlib import Path

import pytest

from trainer.encoders import hub_cache, registry
from trainer.errors import UserError

URL = "https://tfhub.dev/tensorflow/small_bert/bert_en_uncased_L-4_H-512_A-8/1"
PREPROCESS = "https://tfhub.dev/tensorflow/bert_en_uncased_preprocess/3"


# --- The table ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "encoder", "preprocess"),
    [
        ("small_bert/bert_en_uncased_L-4_H-512_A-8", URL, PREPROCESS),
        (
            "small_bert/bert_en_uncased_L-12_H-128_A-2",
            "https://tfhub.dev/tensorflow/small_bert/bert_en_uncased_L-12_H-128_A-2/1",
            PREPROCESS,
        ),
        (
            "bert_en_cased_L-12_H-768_A-12",
            "https://tfhub.dev/tensorflow/bert_en_cased_L-12_H-768_A-12/3",
            "https://tfhub.dev/tensorflow/bert_en_cased_preprocess/3",
        ),
        (
            "bert_multi_cased_L-12_H-768_A-12",
            "https://tfhub.dev/tensorflow/bert_multi_cased_L-12_H-768_A-12/3",
            "https://tfhub.dev/tensorflow/bert_multi_cased_preprocess/3",
        ),
        (
            "bert_zh_L-12_H-768_A-12",
            "https://tfhub.dev/tensorflow/bert_zh_L-12_H-768_A-12/3",
            "https://tfhub.dev/tensorflow/bert_zh_preprocess/3",
        ),
        (
            "albert_en_xxlarge",
            "https://tfhub.dev/tensorflow/albert_en_xxlarge/2",
            "https://tfhub.dev/tensorflow/albert_en_preprocess/3",
        ),
        ("electra_base", "https://tfhub.dev/google/electra_base/2", PREPROCESS),
        ("experts_pubmed", "https://tfhub.dev/google/experts/bert/pubmed/2", PREPROCESS),
        ("experts_wiki_books_sst2", "https://tfhub.dev/google/experts/bert/wiki_books/sst2/2", PREPROCESS),
        ("talking-heads_large", "https://tfhub.dev/tensorflow/talkheads_ggelu_bert_en_large/1", PREPROCESS),
    ],
)
def test_a_name_has_its_handles(name, encoder, preprocess):
    assert registry.ENCODERS[name] == registry.HubHandles(encoder, preprocess)


def test_the_table_has_every_encoder_once():
    assert len(registry.ENCODERS) == len({handles.encoder for handles in registry.ENCODERS.values()}) == 49
    sizes = [name for name in registry.ENCODERS if name.startswith("small_bert/")]
    assert len(sizes) == 24
    families = [
        sum(name.startswith(f) for name in registry.ENCODERS)
        for f in ("albert", "electra", "experts", "talking", "bert_")
    ]
    assert families == [4, 3, 8, 2, 8]


# --- The Hub's cache ------------------------------------------------------------------------------


@pytest.mark.parametrize("handle", ["small_bert/bert_en_uncased_L-4_H-512_A-8", URL])
def test_a_cached_encoder_needs_no_network(copy_to_cache, tiny, handle):
    encoder, preprocess = (
        copy_to_cache(URL, tiny / "encoder"),
        copy_to_cache(PREPROCESS, tiny / "preprocess"),
    )
    assert registry.resolve_encoder(handle) == registry.EncoderFolders(handle, encoder, preprocess)
    assert registry.resolve_encoder(handle, need_preprocess=False).encoder == encoder


@pytest.mark.parametrize("text", [f"{URL}/", URL[8:], f"http{URL[5:]}?tf-hub-format=compressed"])
def test_a_handle_in_another_spelling_is_the_same(copy_to_cache, tiny, text):
    encoder, preprocess = copy_to_cache(URL, tiny / "encoder"), copy_to_cache(PREPROCESS, tiny / "preprocess")
    assert registry.resolve_encoder(text) == registry.EncoderFolders(text, encoder, preprocess)
    assert registry.resolve_preprocess(str(tiny / "encoder"), PREPROCESS + "/") == preprocess


def test_another_version_has_the_same_preprocessor(copy_to_cache, tiny):
    encoder = copy_to_cache(URL[:-1] + "2", tiny / "encoder")
    preprocess = copy_to_cache(PREPROCESS, tiny / "preprocess")
    assert registry.resolve_encoder(URL[8:-1] + "2/") == registry.EncoderFolders(URL[8:-1] + "2/", encoder, preprocess)


def test_a_preprocessor_named_for_a_handle_replaces_its_own(copy_to_cache, tiny):
    kaggle = "https://www.kaggle.com/models/tensorflow/bert/TensorFlow2/mine/1"
    folder = copy_to_cache(kaggle, tiny / "encoder")
    assert registry.resolve_encoder(kaggle, need_preprocess=False).encoder == folder
    assert registry.resolve_encoder(kaggle, preprocess=str(tiny / "preprocess")).preprocess == str(tiny / "preprocess")
    preprocess = copy_to_cache(PREPROCESS, tiny / "preprocess")
    assert registry.resolve_encoder(kaggle, preprocess=PREPROCESS).preprocess == preprocess


def test_without_cache_and_network_the_error_is_quick_and_gives_advice(cache):
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        registry.resolve_encoder("small_bert/bert_en_uncased_L-4_H-512_A-8")
    assert time.monotonic() - started < 5
    (problem,) = caught.value.problems
    assert problem.setting == "--encoder"
    for value in (URL, hub_cache.cache_folder(URL), f"TFHUB_CACHE_DIR={str(cache)!r}", "URLError"):
        assert value in problem.received
    for advice in ("--encoders.mirror=MIRROR", "set --encoder to the folder", "import_encoder.py --source=minilm"):
        assert advice in problem.advice


# --- A mirror -------------------------------------------------------------------------------------


@pytest.fixture
def mirror(copy_to_cache, cache, tiny, tmp_path) -> str:
    """A mirror with the small BERT of URL, filled from a cache that is gone."""
    copy_to_cache(URL, tiny / "encoder")
    copy_to_cache(PREPROCESS, tiny / "preprocess")
    folders = registry.fill_mirror("small_bert/bert_en_uncased_L-4_H-512_A-8", str(tmp_path / "mirror"))
    assert folders == [f"{tmp_path}/mirror/{url[8:]}" for url in (URL, PREPROCESS)]
    shutil.rmtree(cache)
    return str(tmp_path / "mirror")


@pytest.mark.parametrize("text", ["small_bert/bert_en_uncased_L-4_H-512_A-8", URL, f"{URL[8:]}/"])
def test_a_mirror_has_encoder_and_preprocessor_without_a_network(mirror, text):
    folders = registry.resolve_encoder(text, mirror=mirror)
    assert (folders.encoder, folders.preprocess) == (f"{mirror}/{URL[8:]}", f"{mirror}/{PREPROCESS[8:]}")


def test_what_a_mirror_lacks_is_looked_up_elsewhere(mirror, copy_to_cache, tiny):
    other = copy_to_cache(URL.replace("L-4", "L-2"), tiny / "encoder")
    name = "small_bert/bert_en_uncased_L-2_H-512_A-8"
    assert registry.resolve_encoder(name, need_preprocess=False, mirror=mirror).encoder == other


# --- A preprocessor of its own --------------------------------------------------------------------


def test_an_encoder_alone_gets_a_preprocessor_of_its_vocabulary(tiny, tmp_path):
    shutil.copytree(tiny / "encoder", tmp_path / "alone")
    folder = registry.resolve_encoder(str(tmp_path / "alone")).preprocess
    vocabulary = "assets/vocab.txt"
    assert (Path(folder) / vocabulary).read_bytes() == (tiny / "encoder" / vocabulary).read_bytes()


# --- Folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_folder_of_an_encoder_and_its_parent_are_equal(tiny, slash):
    for name in (f"{tiny}{slash}", f"{tiny}/encoder{slash}"):
        folders = registry.resolve_encoder(name)
        assert folders.name == name
        assert folders.encoder.rstrip("/") == str(tiny / "encoder")
        assert folders.preprocess == str(tiny / "preprocess")


@pytest.mark.parametrize("name", ["minilm", "minilm_l3", "small_bert/bert_en_uncased_L-4_H-512_A-8"])
def test_a_folder_in_encoders_is_found_by_its_name(cache, tiny, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoders" / name).parent.mkdir(parents=True)
    (tmp_path / "encoders" / name).symlink_to(tiny)
    assert registry.resolve_encoder(name) == registry.EncoderFolders(
        name, f"encoders/{name}/encoder", f"encoders/{name}/preprocess"
    )


def test_a_named_preprocessor_replaces_the_encoders_own(tiny, tmp_path):
    shutil.copytree(tiny / "preprocess", tmp_path / "other")
    assert registry.resolve_encoder(str(tiny), preprocess=str(tmp_path / "other")).preprocess == str(tmp_path / "other")


def test_a_folder_that_holds_an_encoder_alone_gets_one_too(tiny, tmp_path):
    shutil.copytree(tiny / "encoder", tmp_path / "mine" / "encoder")
    assert (Path(registry.resolve_encoder(str(tmp_path / "mine")).preprocess) / "saved_model.pb").exists()


def test_an_encoder_without_vocabulary_needs_a_preprocessor(tiny, tmp_path):
    shutil.copytree(tiny / "encoder", tmp_path / "alone")
    (tmp_path / "alone" / "assets" / "vocab.txt").unlink()
    with pytest.raises(UserError, match=r"--preprocess .*Received: none.*/alone"):
        registry.resolve_encoder(str(tmp_path / "alone"))
    assert registry.resolve_encoder(str(tmp_path / "alone"), need_preprocess=False).preprocess == ""
    with pytest.raises(UserError, match=r"--preprocess .*Received: .*/no"):
        registry.resolve_encoder(str(tmp_path / "alone"), preprocess=str(tmp_path / "no"))


@pytest.mark.parametrize("name", ["small_bert", "no/such/folder", "gs-bucket", "minilm", "minilm_l3"])
def test_an_unknown_name_is_rejected_with_what_was_tried(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        registry.resolve_encoder(name)
    (problem,) = caught.value.problems
    assert problem.setting == "--encoder"
    assert repr(name) in problem.received
    assert f"encoders/{name}" in problem.received
    assert (f"import_encoder.py --source={name} " in problem.advice) is name.startswith("minilm")


@pytest.mark.parametrize(("file", "source"), [("config.json", "hf"), ("bert_config.json", "checkpoint")])
def test_the_folder_of_another_format_is_to_be_imported(tmp_path, file, source):
    (tmp_path / file).touch()
    with pytest.raises(UserError, match=f"import_encoder.py --source={source}:{tmp_path} --output="):
        registry.resolve_encoder(str(tmp_path))


def test_the_hash_depends_on_content_and_not_on_the_folder(tiny, tmp_path):
    first = registry.saved_model_sha256(str(tiny / "encoder"))
    shutil.copytree(tiny / "encoder", tmp_path / "moved")
    assert registry.saved_model_sha256(str(tmp_path / "moved")) == first
    weights = tmp_path / "moved" / "variables" / "variables.data-00000-of-00001"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    assert registry.saved_model_sha256(str(tmp_path / "moved")) != first
