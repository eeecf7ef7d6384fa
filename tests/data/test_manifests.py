"""dataset.json: written, read, fingerprinted, and refused where it or a shard is not what was written."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.data import manifests
from trainer.data.manifests import Findings
from trainer.errors import UserError
from trainer.storage import fs


def test_a_manifest_is_read_as_it_was_written(small_data_set):
    folder, manifest = small_data_set
    manifests.write_manifest(folder, manifest)
    assert manifests.read_manifest(folder) == manifest
    assert json.loads(fs.read_text(f"{folder}/dataset.json"))["fingerprint"] == manifest.fingerprint
    assert manifest.classes == 2


def test_findings_are_kept_and_an_earlier_manifest_has_none(small_data_set):
    folder, manifest = small_data_set
    found = Findings("2 classes", 3, 1, ("'so so': bad, good",), ("rare",))
    manifests.write_manifest(folder, dataclasses.replace(manifest, findings=found))
    assert manifests.read_manifest(folder).findings == found
    path = f"{folder}/dataset.json"
    content = json.loads(fs.read_text(path))
    del content["findings"]
    fs.write_text(path, json.dumps(content))
    assert manifests.read_manifest(folder) == manifest


def test_the_fingerprint_is_of_what_training_depends_on(make_manifest):
    first = make_manifest().fingerprint
    assert make_manifest(encoder="/elsewhere/minilm").fingerprint == first
    assert make_manifest(findings=Findings(copies=3)).fingerprint == first
    changes = [dict(seed=8), dict(labels=("größer, gut", "bad")), dict(removed={}), dict(texts=2)]
    changes.append(dict(vocabulary=dataclasses.replace(make_manifest().vocabulary, lower_case=False)))
    changes += [dict(weighted=True), dict(kept_columns=("source",))]
    assert len({first, *(make_manifest(**change).fingerprint for change in changes)}) == 1 + len(changes)


def test_a_data_set_from_before_weights_keeps_its_fingerprint(small_data_set):
    folder, manifest = small_data_set
    manifests.write_manifest(folder, manifest)
    path = Path(folder) / "dataset.json"
    content = json.loads(path.read_text())
    del content["weighted"], content["kept_columns"]
    path.write_text(json.dumps(content))
    assert manifests.read_manifest(folder) == manifest


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["splits"]["train"]["shards"][1].update(crc32c=1), "stay as it was written, with the fingerprint"),
        (lambda c: c.update(labels=["good", "bad"]), "fingerprint"),
        (lambda c: c.update(format=2), "must have format 1. Received: 2."),
        (lambda c: c.pop("vocabulary"), "KeyError"),
        (lambda c: c.update(extra=1), "TypeError"),
        (lambda c: c.pop("fingerprint"), "KeyError"),
    ],
)  # fmt: skip
def test_a_changed_manifest_is_refused(small_data_set, change, named):
    folder, manifest = small_data_set
    manifests.write_manifest(folder, manifest)
    path = f"{folder}/dataset.json"
    content = json.loads(fs.read_text(path))
    change(content)
    fs.write_text(path, json.dumps(content))
    with pytest.raises(UserError) as caught:
        manifests.read_manifest(folder)
    assert str(caught.value).startswith(path)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../b", "gs://other/x", "..\\x", "..", "", "a/b.tfrecord", "x\0"]
)
def test_the_name_of_a_shard_in_another_folder_is_refused(small_data_set, name):
    folder, manifest = small_data_set
    shard = dataclasses.replace(manifest.splits["train"].shards[0], name=name)
    train = dataclasses.replace(manifest.splits["train"], shards=(shard,))
    manifests.write_manifest(folder, dataclasses.replace(manifest, splits={"train": train}))
    with pytest.raises(UserError) as caught:
        manifests.read_manifest(folder)
    (problem,) = caught.value.problems
    assert (problem.setting, problem.received) == (f"{folder}/dataset.json", repr(name))


@pytest.mark.parametrize("text", ["", "{", "[]", "1"])
def test_a_file_that_is_no_manifest_is_refused(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(UserError, match=r"must be a manifest as scripts/prepare_data\.py writes it"):
        manifests.read_manifest(str(tmp_path))


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_a_manifest_is_refused(tmp_path, exists):
    folder = str(tmp_path if exists else tmp_path / "no")
    with pytest.raises(UserError, match=r"its preparation did not end" if exists else r"does not exist") as caught:
        manifests.read_manifest(folder)
    (problem,) = caught.value.problems
    assert problem.setting == "--data_dir"
    assert folder in problem.received


def test_missing_and_truncated_shards_are_named_without_reading(small_data_set, tmp_path):
    folder, manifest = small_data_set
    manifests.check_shard_sizes(folder, manifest)
    first, second, third = (tmp_path / shard.name for shard in manifest.splits["train"].shards)
    first.unlink()
    # Truncated between two records: TFRecordDataset reads such a file to the end without an error.
    (length,) = np.frombuffer(third.read_bytes()[:8], np.uint64)
    third.write_bytes(third.read_bytes()[: int(length) + 16])
    assert len(list(tf.data.TFRecordDataset(str(third)))) == 1
    with pytest.raises(UserError) as caught:
        manifests.check_shard_sizes(folder, manifest)
    assert [problem.setting for problem in caught.value.problems] == [str(first), str(third)]
    assert [problem.received for problem in caught.value.problems] == ["no such file", f"{length + 16:,} bytes"]
    assert f"{manifest.splits['train'].shards[2].bytes:,} bytes" in caught.value.problems[1].required
    assert second.name not in str(caught.value)
