"""An encoder of the Hub by its name, from a mirror alone: no cache, no network."""

import hashlib
import os
import shutil

import pytest
from helpers import python, write_reviews

from trainer.encoders import registry

pytestmark = pytest.mark.long

NAME = "small_bert/bert_en_uncased_L-4_H-512_A-8"


@pytest.fixture
def offline(tmp_path) -> dict[str, str]:
    """The environment of a process without a network, whose caches are empty."""
    proxy = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return {**os.environ, **proxy, "TFHUB_CACHE_DIR": str(tmp_path / "empty"), "KAGGLEHUB_CACHE": str(tmp_path / "no")}


def test_a_job_runs_with_an_encoder_of_a_mirror(tiny, tmp_path, offline):
    handles = registry.ENCODERS[NAME]
    for url, folder in ((handles.encoder, "encoder"), (handles.preprocess, "preprocess")):
        shutil.copytree(tiny / folder, tmp_path / "cache" / hashlib.sha1(url.encode()).hexdigest())
    mirror, data = tmp_path / "mirror", tmp_path / "data"
    cached = {**offline, "TFHUB_CACHE_DIR": str(tmp_path / "cache")}
    done = python("scripts/import_encoder.py", f"--source=hub:{NAME}", f"--output={mirror}", env=cached, check=True)
    assert done.stdout.count("is complete") == 2
    flags = [f"--encoder={NAME}", f"--encoders.mirror={mirror}"]
    source = write_reviews(tmp_path / "reviews.csv", 60)
    arguments = ["--task=csv", f"--source={source}", f"--output={data}"]
    python("scripts/prepare_data.py", *arguments, *flags, env=offline, check=True)
    job = [f"--data_dir={data}", f"--model_dir={tmp_path / 'run'}", f"--encoder={NAME}", "--training.steps=2"]
    settings = [f"--set=encoders.mirror={mirror}", "--data.seq_length=24", "--logging.report=off"]
    python("-m", "trainer.task", *job, *settings, env=offline, check=True)
    assert (tmp_path / "run" / "result.json").exists()
    moved = shutil.move(mirror, tmp_path / "moved")
    evaluation = ["--mode=evaluate", f"--model_dir={tmp_path / 'run'}"]
    assert python("-m", "trainer.task", *evaluation, env=offline).returncode == 1
    python("-m", "trainer.task", *evaluation, f"--encoders.mirror={moved}", env=offline, check=True)
