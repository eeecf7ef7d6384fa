"""Encoders of other formats written in the Hub's, and read again."""

import dataclasses

import pytest
from fakes.bert import PIECES, random_weights, write_hugging_face, write_vocabulary
from helpers import long_but_for, python
from imported_encoders import assert_outputs, read

from trainer.data import tokenization
from trainer.encoders import hub_format, native, saved_models
from trainer.errors import UserError

SMALL_VALUES = {
    name: value * (0.01 if "embeddings." in name and "LayerNorm" not in name else 1)
    for name, value in random_weights().items()
}


@pytest.mark.parametrize(
    ("kind", "epsilon"), long_but_for([("relu", 1e-2)], [("gelu", 1e-12), ("gelu", 1e-5), ("relu", 1e-2)])
)
def test_an_export_and_its_rebuild_keep_outputs(tmp_path, kind, epsilon):
    folder = write_hugging_face(tmp_path / "hf", SMALL_VALUES, hidden_act=kind, layer_norm_eps=epsilon)
    hub_format.write_encoder(read(folder), f"{tmp_path}/out")
    saved = saved_models.load_saved_model(f"{tmp_path}/out/encoder")
    assert_outputs(saved, folder, SMALL_VALUES)
    architecture, values = native.rebuild_encoder(saved)
    assert (architecture.activation, architecture.layer_norm_epsilon) == (kind, epsilon)
    rebuilt = native.build_encoder(architecture)
    for variable, value in zip(rebuilt.trainable_variables, values, strict=True):
        variable.assign(value)
    assert_outputs(rebuilt, folder, SMALL_VALUES)


def test_an_export_keeps_the_case(tmp_path):
    folder = write_hugging_face(tmp_path / "hf")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    words = "The the Movie movie Was was GREAT great".split()  # noqa: SIM905
    write_vocabulary(folder, [*PIECES[:5], *words, *"ABCDEFGHabcdefgh", "."])
    hub_format.write_encoder(read(folder), f"{tmp_path}/made/out")
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["out"]
    assert sorted(p.name for p in (tmp_path / "made" / "out").iterdir()) == ["encoder", "preprocess"]
    tokenizer = tokenization.load_tokenizer(str(tmp_path / "made" / "out" / "preprocess"))
    assert not tokenizer.lower_case
    assert tokenizer.tokenize(["A a ."]).to_list() == [[13, 21, 29]]


@pytest.mark.parametrize("link", [False, True])
def test_a_file_or_link_at_the_output_is_kept(tmp_path, link):
    output = tmp_path / "notes.txt"
    output.symlink_to(tmp_path) if link else output.write_text("notes")
    with pytest.raises(UserError, match=r"--output .*notes\.txt"):
        hub_format.write_encoder(None, str(output))
    assert output.is_symlink() if link else output.read_text() == "notes"


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "thesis.txt").write_text("three years")
    with pytest.raises(UserError, match=r"--output .*thesis\.txt"):
        hub_format.write_encoder(None, f"{tmp_path}/documents")
    assert (tmp_path / "documents" / "thesis.txt").read_text() == "three years"


def test_a_failed_export_changes_nothing(tmp_path):
    imported = read(write_hugging_face(tmp_path / "hf"))
    output = tmp_path / "made" / "out"
    (output / "encoder").mkdir(parents=True)
    (output / "encoder" / "saved_model.pb").write_text("before")
    with pytest.raises(Exception, match=r"no-vocab\.txt"):
        hub_format.write_encoder(dataclasses.replace(imported, vocabulary_file=tmp_path / "no-vocab.txt"), str(output))
    assert [path.relative_to(output).as_posix() for path in sorted(output.rglob("*"))] == [
        "encoder",
        "encoder/saved_model.pb",
    ]
    assert [path.name for path in output.parent.iterdir()] == ["out"]


CHANGES = [dict(heads=2), dict(layers=1), dict(activation="relu")]


@pytest.mark.parametrize("changes", long_but_for(CHANGES[:1], CHANGES))
def test_an_export_that_computes_something_else_is_refused(tmp_path, changes):
    """As if the conversion had ignored what the configuration says."""
    imported = read(write_hugging_face(tmp_path / "hf"))
    architecture = dataclasses.replace(imported.reference.architecture, **changes)
    source = dataclasses.replace(imported.reference, architecture=architecture)
    with pytest.raises(UserError, match="The outputs of the encoder must"):
        hub_format.write_encoder(dataclasses.replace(imported, reference=source), f"{tmp_path}/out")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_an_encoder_is_imported_from_a_bucket_into_a_bucket(tmp_path, simulator):
    folder = write_hugging_face(tmp_path / "hf")
    simulator.python(f'from trainer.storage import fs; fs.copy_folder("{folder}", "gs://bucket/hf")')
    arguments = ["--source=hf:gs://bucket/hf", "--output=gs://bucket/made/out"]
    python("scripts/import_encoder.py", *arguments, env=simulator.environment(), check=True)
    code = """
from trainer.encoders import registry, saved_models
folders = registry.resolve_encoder("gs://bucket/made/out")
encoder = saved_models.load_saved_model(folders.encoder)
print(len(encoder.trainable_variables), registry.is_saved_model(folders.preprocess))
"""
    assert simulator.python(code) == "39 True"
    written = [line["wrote"] for line in simulator.log() if line.get("wrote", "").startswith("made/")]
    assert written[-2:] == ["made/out/encoder/saved_model.pb", "made/out/preprocess/saved_model.pb"]
