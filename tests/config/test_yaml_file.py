import pytest

from trainer.config import yaml_file
from trainer.errors import UsageError


@pytest.fixture
def read(tmp_path):
    """What is read from a file of this text."""

    def of(text):
        (tmp_path / "file.yaml").write_text(text, encoding="utf-8")
        return yaml_file.read_yaml(str(tmp_path / "file.yaml"), "--tune")

    return of


def test_every_duplicate_key_is_named_with_its_line(read):
    with pytest.raises(UsageError, match="--tune must hold each key once") as caught:
        read("seed: 1\ndata: {batch_size: 2, batch_size: 4}\nlist: [{a: 1, a: 2}]\nseed: 2\n")
    message = str(caught.value)
    for line, key in ((2, "batch_size"), (3, "a"), (4, "seed")):
        assert f"line {line} has the key {key!r}" in message


@pytest.mark.parametrize("text", ["data: &d {x: *d}\n", "[" * 3000, "? !!binary aGk=\n: x\n"])
def test_what_has_no_end_is_too_deep_or_has_other_keys_does_not_parse(read, text):
    with pytest.raises(UsageError, match=r"--tune must name a YAML file.* does not parse"):
        read(text)


def test_a_tag_makes_no_object(read, tmp_path):
    made = tmp_path / "made"
    with pytest.raises(UsageError, match=r"python/object/apply:os.mkdir"):
        read(f"encoder: !!python/object/apply:os.mkdir [{made}]\n")
    assert not made.exists()


def test_anchors_and_merged_mappings_are_read(read):
    assert read("data: &a {batch_size: 2}\n") == {"data": {"batch_size": 2}}
    assert read("data: {batch_size: 2, <<: {batch_size: 3, seq_length: 8}}\n") == {
        "data": {"batch_size": 2, "seq_length": 8}
    }


@pytest.mark.parametrize("text", ["data_dir: {{ DIR }}\n", "? [a, b]\n: 1\n"])
def test_a_key_that_is_no_name_is_refused(read, text):
    with pytest.raises(UsageError, match="--tune must name a YAML file"):
        read(text)


def test_a_key_is_the_text_that_is_written(read):
    text = "weights: {no: 2, On: 3, 1: 4, 1.0: 5, ~: 6, 2026-01-01: 7, 'yes': 8}\nvalue: no\n"
    weights = {"no": 2, "On": 3, "1": 4, "1.0": 5, "~": 6, "2026-01-01": 7, "yes": 8}
    assert read(text) == {"weights": weights, "value": False}
