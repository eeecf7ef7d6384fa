import json
import shutil
from pathlib import Path

import pytest
from fakes import model_hub

from trainer.encoders import mirrors
from trainer.encoders.handles import parse_handle
from trainer.errors import UserError
from trainer.storage import fs

HANDLE = parse_handle("tfhub.dev/google/bert/1", "--encoder")


@pytest.fixture
def mirror(tmp_path) -> str:
    return str(tmp_path / "mirror")


@pytest.fixture
def filled(mirror, saved_model) -> str:
    """The folder of a model in a mirror."""
    return mirrors.add_model(HANDLE, str(saved_model), mirror)


def test_a_mirror_gives_the_files_that_were_added(mirror, filled, saved_model):
    assert filled == f"{mirror}/tfhub.dev/google/bert/1"
    found = model_hub.read_files(Path(mirrors.find_model(HANDLE, mirror)))
    found.pop("sha256.json", None)
    assert found == model_hub.read_files(saved_model)
    assert json.loads(fs.read_text(f"{filled}/sha256.json"))["handle"] == "https://tfhub.dev/google/bert/1"
    assert mirrors.find_model(parse_handle("tfhub.dev/google/bert/2", "--encoder"), mirror) is None


def test_a_model_that_is_there_is_not_written_again(mirror, filled, saved_model):
    before = Path(filled, "saved_model.pb").stat()
    assert mirrors.add_model(HANDLE, str(saved_model), mirror) == filled
    assert Path(filled, "saved_model.pb").stat() == before


@pytest.mark.parametrize("change", ["another byte", "missing", "no manifest", "another manifest", "a name outside"])
def test_a_damaged_copy_is_refused(mirror, filled, change):
    file, manifest = f"{filled}/variables/variables.data-00000-of-00001", f"{filled}/sha256.json"
    if change == "another byte":
        data = fs.read_bytes(file)
        fs.write_bytes(file, data[:-1] + bytes([data[-1] ^ 1]))
    elif change == "missing":
        fs.remove(file)
    elif change == "no manifest":
        fs.remove(manifest)
    elif change == "another manifest":
        fs.write_text(manifest, "[]")
    else:
        fs.write_text(manifest, json.dumps({"files": {"../../out": "0"}}))
    with pytest.raises(UserError) as caught:
        mirrors.find_model(HANDLE, mirror)
    assert filled in str(caught.value)
    if change in ("another byte", "missing", "no manifest"):
        assert "import_encoder.py --source=hub:https://tfhub.dev/google/bert/1" in str(caught.value)


def test_a_damaged_copy_is_replaced(mirror, filled, saved_model):
    fs.remove(f"{filled}/sha256.json")
    fs.write_text(f"{filled}/left", "of an earlier copy")
    mirrors.add_model(HANDLE, str(saved_model), mirror)
    assert mirrors.find_model(HANDLE, mirror)
    assert not fs.exists(f"{filled}/left")


def test_a_copy_that_is_cut_off_is_not_used(mirror, saved_model, tmp_path):
    cut = shutil.copytree(saved_model, tmp_path / "cut")
    (cut / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        mirrors.add_model(HANDLE, str(cut), mirror)
    assert mirrors.find_model(HANDLE, mirror) is None


def test_a_mirror_in_a_bucket_gives_a_verified_copy(simulator, saved_model):
    code = f"""
from trainer.encoders import mirrors
from trainer.encoders.handles import parse_handle
from trainer.errors import UserError
from trainer.storage import fs
handle = parse_handle("tfhub.dev/google/bert/1", "--encoder")
filled = mirrors.add_model(handle, {str(saved_model)!r}, "gs://bucket/mirror")
found = mirrors.find_model(handle, "gs://bucket/mirror")
same = all(fs.read_bytes(f"{{found}}/{{name}}") == fs.read_bytes(f"{saved_model}/{{name}}")
           for name in fs.list_files({str(saved_model)!r}))
fs.write_text(filled + "/variables/variables.index", "other")
try:
    mirrors.find_model(handle, "gs://bucket/mirror")
except UserError as error:
    print(filled, same, error.problems[0].received)
"""
    filled = "gs://bucket/mirror/tfhub.dev/google/bert/1"
    assert simulator.python(code) == f"{filled} True {filled}/variables/variables.index, which is another file"
    written = [line["wrote"] for line in simulator.log() if line.get("wrote", "").startswith("mirror/")]
    assert written[-2] == "mirror/tfhub.dev/google/bert/1/sha256.json"
