"""Paths as users write them: what is put in one form, and what is refused, in the functions and in every command."""

import os
import pwd

import pytest
from helpers import ROOT, python, write_reviews

from trainer.storage import paths

USER = pwd.getpwuid(os.getuid())


def normalize(path: str, **options) -> str:
    problems = []
    normal = paths.normalize_path("--flag", path, problems, **options)
    assert problems == []
    return normal


def refuse(path: str, **options):
    problems = []
    assert paths.normalize_path("--flag", path, problems, **options) == path
    (problem,) = problems
    assert problem.setting == "--flag"
    return problem


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("", ""),
        ("-", "-"),
        (".", "."),
        ("/", "/"),
        ("//", "/"),
        ("runs/mine/", "runs/mine"),
        ("runs//mine//", "runs/mine"),
        ("../runs/./mine", "../runs/./mine"),
        ("runs/10:30", "runs/10:30"),
        ("exp [1]/a*b?/c\\d", "exp [1]/a*b?/c\\d"),
        ("small_bert/bert_en_uncased_L-2_H-128_A-2", "small_bert/bert_en_uncased_L-2_H-128_A-2"),
        ("gs://bucket", "gs://bucket"),
        ("gs://bucket/", "gs://bucket"),
        ("gs://bucket//a///b//", "gs://bucket/a/b"),
        ("gs://bucket/a [1]/~b", "gs://bucket/a [1]/~b"),
        ("/gcs/bucket//a/", "/gcs/bucket/a"),
    ],
)
def test_a_path_has_one_form(path, normal):
    assert normalize(path) == normal
    assert normalize(normal) == normal


def test_a_home_is_expanded(monkeypatch, tmp_path):
    home = f"{tmp_path}/of me"
    monkeypatch.setenv("HOME", home)
    assert normalize("~") == home
    assert normalize("~/data//mine/") == f"{home}/data/mine"
    assert normalize(f"~{USER.pw_name}/data") == f"{USER.pw_dir.rstrip('/')}/data"
    assert normalize("data/~/x") == "data/~/x"
    assert normalize("./~/x") == "./~/x"


def test_a_user_that_does_not_exist_is_refused_and_a_file_that_does_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "./~nobody-of-this-name" in refuse("~nobody-of-this-name").advice
    (tmp_path / "~$table.csv").touch()
    assert normalize("~$table.csv") == "~$table.csv"


@pytest.mark.parametrize("path", ["gs:/bucket/run", "gs:bucket/run", "GS://bucket/run", "gs:/"])
def test_a_misspelled_gs_is_refused_with_the_right_one(path):
    assert refuse(path).advice.startswith("Did you mean gs://")


@pytest.mark.parametrize("path", ["s3://bucket/a", "s3:/bucket/a", "hdfs://a/b", "https://host/a", "http://host/a"])
def test_another_scheme_is_refused(path):
    assert refuse(path).received == path


def test_a_file_url_is_refused_with_its_path():
    assert refuse("file:///data/mine").advice == "Did you mean /data/mine?"


@pytest.mark.parametrize("path", ["gs://bucket/../a", "gs://bucket/a/./b"])
def test_an_object_s_name_without_meaning_is_refused(path):
    assert refuse(path).received == path


def test_an_address_is_kept_where_one_is_allowed():
    assert normalize("https://tfhub.dev//a/1/", url=True) == "https://tfhub.dev//a/1/"
    assert refuse("https:/tfhub.dev/a", url=True)
    assert refuse("s3://bucket/a", url=True)


def test_a_name_that_is_no_utf_8_is_refused():
    assert refuse(os.fsdecode(b"runs/\xff")).received == "'runs/\\udcff'"


# --- Commands ---------------------------------------------------------------------------------------

# A command -> its flags that name a path.
COMMANDS = {
    "-m trainer.task": (
        *("--model_dir=", "--config=", "--data_dir=", "--encoder=", "--preprocess=", "--encoders.mirror="),
    ),
    "-m trainer.task --mode=evaluate": ("--model_dir=", "--data_dir=", "--predictions="),
    "scripts/prepare_data.py --task=csv": (
        *("--source=", "--test_source=", "--encoder=", "--preprocess=", "--encoders.mirror="),
        *("--output=", "--downloads="),
    ),
    "scripts/prepare_data.py": ("--inspect=",),
    "scripts/import_encoder.py": ("--source=hf:", "--output="),
    "scripts/predict.py": ("--model=", "--input="),
    "scripts/submit.py": (
        *("--config=", "--tune=", "--data_dir=", "--encoder=", "--preprocess=", "--base_output_directory=", "--model="),
        "--encoders.mirror=",
    ),
}


@pytest.mark.parametrize("line", COMMANDS)
def test_every_flag_that_names_a_path_is_checked(line):
    done = python(*line.split(), *(f"{flag}gs:/bucket/x" for flag in COMMANDS[line]))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    errors = [error for error in done.stderr.splitlines() if "Did you mean gs://bucket/x?" in error]
    assert len(errors) == len(COMMANDS[line])
    for flag in COMMANDS[line]:
        assert any(f"{flag.split('=')[0]} " in error.replace("=hf:DIR", "") for error in errors)
    assert not (ROOT / "gs:").exists()


def test_the_paths_of_a_configuration_are_checked(tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("data_dir: s3://bucket/data\nencoder: gs:/bucket/encoder\n", encoding="utf-8")
    done = python("-m", "trainer.task", f"--config={preset}", "--set=preprocess=file:///x", f"--model_dir={tmp_path}/r")
    assert done.returncode == 2
    for flag in ("--data_dir", "--encoder", "--preprocess"):
        assert f"{flag} must be" in done.stderr
    assert not (tmp_path / "r").exists()


def test_a_home_is_expanded_in_a_flag(tmp_path):
    (tmp_path / "preset.yaml").write_text("seed: many\n", encoding="utf-8")
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = python("-m", "trainer.task", "--config=~//preset.yaml", "--model_dir=~/run", env=environment)
    assert done.returncode == 2
    assert "seed must" in done.stderr
    assert "--config" not in done.stderr


@pytest.mark.parametrize("variable", ["AIP_MODEL_DIR", "AIP_CHECKPOINT_DIR"])
def test_a_service_s_folder_is_checked(variable):
    done = python("-m", "trainer.task", "--data_dir=data", env={**os.environ, variable: "gs:/bucket/x/"})
    assert done.returncode == 2
    assert f"{variable} must be" in done.stderr


# --- Characters of patterns -------------------------------------------------------------------------


@pytest.mark.long
def test_a_job_works_in_folders_with_the_characters_of_patterns(tmp_path):
    """Everything that TensorFlow reads: an imported encoder, a preprocessor, a checkpoint, weights, an export."""
    encoder, data, run = (tmp_path / name for name in ("an [e]", "da*ta?", "exp [1]\\x"))
    source = write_reviews(tmp_path / "reviews [1].csv", 60)
    python("scripts/import_encoder.py", "--source=random:tiny", f"--output={encoder}", check=True)
    prepare = ("--task=csv", f"--source={source}", f"--encoder={encoder}", f"--output={data}/")
    python("scripts/prepare_data.py", *prepare, check=True)
    keys = ("--training.steps=4", "--training.save_every=2", "--data.seq_length=16", "--data.batch_size=8")
    job = ["-m", "trainer.task", *keys, f"--data_dir={data}", f"--encoder={encoder}", f"--model_dir={run}"]
    python(*job, check=True)
    (run / "result.json").unlink()
    (run / "export/saved_model.pb").unlink()
    done = python(*job, check=True)  # It restores the newest checkpoint, and the best.
    assert "corrupt" not in done.stderr
    predictions = run / "predictions.jsonl"
    python("-m", "trainer.task", "--mode=evaluate", f"--model_dir={run}", f"--predictions={predictions}", check=True)
    assert len(predictions.read_text(encoding="utf-8").splitlines()) == 6
    assert python("scripts/predict.py", f"--model={run}/export", "a film", check=True).stdout.endswith("  a film\n")
