import pytest
from helpers import python

from trainer.encoders import importing
from trainer.errors import UsageError, UserError


def download_nothing(name, folder):
    raise AssertionError("only embedded encoders are downloaded")


@pytest.mark.parametrize(
    ("source", "kind", "location", "folder"),
    [
        ("minilm", "minilm", "", ""),
        ("minilm_l3", "minilm_l3", "", ""),
        ("hf:gs://bucket/bert", "hf", "gs://bucket/bert", "gs://bucket/bert"),
        ("checkpoint:bert", "checkpoint", "bert", "bert"),
        ("hub:https://tfhub.dev/google/bert/1", "hub", "https://tfhub.dev/google/bert/1", ""),
        ("random:tiny", "random", "tiny", ""),
    ],
)
def test_a_source_is_parsed(source, kind, location, folder):
    parsed = importing.parse_source(source)
    assert (parsed.kind, parsed.location, parsed.folder) == (kind, location, folder)


@pytest.mark.parametrize("source", ["", "minilm:", "minilm_l4", "hf", "hf:", "hub:", "random:", "zip:bert.zip"])
def test_any_other_source_is_rejected(source):
    with pytest.raises(UsageError) as caught:
        importing.parse_source(source)
    (problem,) = caught.value.problems
    assert (problem.setting, problem.received) == ("--source", repr(source))


@pytest.mark.parametrize("kind", ["hf", "checkpoint"])
def test_a_missing_folder_is_named(tmp_path, kind):
    source = importing.parse_source(f"{kind}:{tmp_path}/missing")
    with pytest.raises(UserError, match=f"--source={kind}:DIR .*{tmp_path}/missing"):
        importing.import_encoder(source, f"{tmp_path}/out", download_nothing)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "code"), [("zip:bert.zip", 2), ("random:huge", 2), ("hf:/missing", 1), ("hub:missing", 1)]
)
def test_the_exit_code_of_the_command(tmp_path, source, code):
    done = python("scripts/import_encoder.py", f"--source={source}", f"--output={tmp_path}/out")
    assert done.returncode == code
    assert "error: --source" in done.stderr
