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


def test_what_yaml_should_not_hold_is_told_in_one_message(read, tmp_path):
    made = tmp_path / "made"
    text = (
        f"seed: 1\ndata: {{batch_size: 2, batch_size: 4}}\nencoder: !!python/object/apply:os.mkdir [{made}]\nseed: 2\n"
    )
    with pytest.raises(
        UsageError, match=r"^--tune .* does not parse: line 2 has the key 'batch_size' a second time"
    ) as caught:
        read(text)
    message = str(caught.value)
    assert "line 3 has the tag 'tag:yaml.org,2002:python/object/apply:os.mkdir'" in message
    assert "line 4 has the key 'seed' a second time" in message
    assert not made.exists()


def test_anchors_and_merged_mappings_are_read(read):
    assert read("data: &a {batch_size: 2}\n") == {"data": {"batch_size": 2}}
    assert read("data: {batch_size: 2, <<: {batch_size: 3, seq_length: 8}}\n") == {
        "data": {"batch_size": 2, "seq_length": 8}
    }
