import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fakes.encoders import save_mean_of_embeddings

from trainer.encoders import native, rebuild_cache, registry, saved_models
from trainer.encoders.rebuild_cache import RebuiltEncoder


@pytest.fixture
def folder(tiny, tmp_path, monkeypatch) -> str:
    """The folder of the tiny encoder, with an empty cache."""
    monkeypatch.setenv("HUBTUNE_CACHE_DIR", str(tmp_path / "cache"))
    return str(shutil.copytree(tiny / "encoder", tmp_path / "encoder"))


@pytest.fixture(scope="module")
def rebuilt(tiny) -> RebuiltEncoder:
    saved = saved_models.load_saved_model(str(tiny / "encoder"))
    return RebuiltEncoder(*native.rebuild_encoder(saved), list(native.variables_by_name(saved.trainable_variables)))


def find(folder: str) -> RebuiltEncoder | None:
    return rebuild_cache.find_rebuilt(folder, registry.saved_model_sha256(folder))


def keep(folder: str, rebuilt: RebuiltEncoder) -> list[Path]:
    """The files in the cache afterwards."""
    rebuild_cache.keep_rebuilt(folder, registry.saved_model_sha256(folder), rebuilt)
    return list(Path(rebuild_cache.cache_folder()).glob("*"))


def test_what_was_kept_is_found_bit_for_bit(folder, rebuilt):
    assert find(folder) is None
    (file,) = keep(folder, rebuilt)
    assert file.stat().st_size < 20_000  # It has no values.
    found = find(folder)
    assert (found.architecture, found.names) == (rebuilt.architecture, rebuilt.names)
    for value, kept in zip(rebuilt.values, found.values, strict=True):
        assert value.dtype == kept.dtype
        assert np.array_equal(value, kept)


def test_a_check_of_fused_layers_is_kept(folder, rebuilt):
    keep(folder, rebuilt)
    assert not find(folder).fused_checked
    assert len(keep(folder, dataclasses.replace(rebuilt, fused_checked=True))) == 1
    assert find(folder).fused_checked


def test_another_value_or_graph_is_another_encoder(folder, rebuilt):
    keep(folder, rebuilt)
    for name in ("saved_model.pb", "variables/variables.data-00000-of-00001"):
        path = Path(folder, name)
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert find(folder) is None
        path.write_bytes(content)
    assert find(folder)


def test_another_version_of_the_code_finds_nothing(folder, rebuilt, monkeypatch):
    keep(folder, rebuilt)
    monkeypatch.setattr(rebuild_cache, "_code_version", lambda: "another")
    assert find(folder) is None


@pytest.mark.parametrize("content", ["", "{}", '{"architecture": {"layers": 2}, "keys": [], "names": []}', "[1]"])
def test_a_file_that_cannot_be_used_is_ignored(folder, rebuilt, content):
    (file,) = keep(folder, rebuilt)
    file.write_text(content)
    assert find(folder) is None
    keep(folder, rebuilt)
    assert find(folder)


def test_a_key_that_the_variables_lack_is_ignored(folder, rebuilt):
    (file,) = keep(folder, rebuilt)
    file.write_text(json.dumps({**json.loads(file.read_text()), "keys": ["other"]}))
    assert find(folder) is None


def test_nothing_is_kept_of_other_values(folder, rebuilt, tmp_path):
    save_mean_of_embeddings(tmp_path / "other")
    assert keep(str(tmp_path / "other"), rebuilt) == []


def test_a_cache_that_cannot_be_written_is_no_error(folder, rebuilt, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HUBTUNE_CACHE_DIR", str(tmp_path / "file"))
    assert keep(folder, rebuilt) == []
    assert find(folder) is None
