import dataclasses

import pytest
from helpers import ROOT

from trainer.config import loading, schema
from trainer.config.schema import Config
from trainer.config.sink_targets import ON
from trainer.errors import UsageError

CLASS_WEIGHTS = "be balanced, none, or weights from 1e-6 to 1e6 by label, such as {spam: 10, ham: 1}"


@pytest.fixture
def preset(tmp_path):
    """A function text -> the path of a YAML file that holds it."""

    def write(text: str) -> str:
        path = tmp_path / "preset.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_without_anything_the_defaults_stand():
    assert loading.load_config(None) == Config()


@pytest.mark.parametrize("written", ["2e-5", "0.00002", "'2e-5'", "2.0e-05"])
def test_a_number_is_one_however_yaml_reads_it(preset, written):
    loaded = loading.load_config(preset(f"optimizer:\n  learning_rate: {written}\n"))
    assert loaded.optimizer.learning_rate == 2e-5
    assert type(loaded.optimizer.learning_rate) is float


@pytest.mark.parametrize(
    ("written", "value"),
    [("true", ON), ("on", ON), ("'Yes'", ON), ("off", ""), ("'none'", ""), ("", ""), ("'file:///x'", "file:///x")],
)
def test_a_sink_is_switched_on_or_has_a_target(preset, written, value):
    assert loading.load_config(preset(f"logging: {{mlflow: {written}}}")).logging.mlflow == value
    flag = written.strip("'")
    assert loading.load_config(None, [f"logging.mlflow={flag}"]).logging.mlflow == value


def test_a_sink_that_is_no_text_is_told_the_words(preset):
    with pytest.raises(UsageError) as caught:
        loading.load_config(preset("logging: {wandb: [on]}"))
    (problem,) = caught.value.problems
    words = "be on, true, yes, off, false, no, none, or where to log to"
    assert (problem.setting, problem.required, problem.received) == ("logging.wandb", words, "[True]")


@pytest.mark.parametrize(("written", "value"), [("off", False), ("'off'", False), ("yes", True), ("true", True)])
def test_a_switch_is_one_however_yaml_reads_it(preset, written, value):
    assert loading.load_config(preset(f"logging: {{progress: {written}}}")).logging.progress is value


@pytest.mark.parametrize(
    ("written", "value"),
    [("16", 16), ("16.0", 16), (" 16.0 ", 16), ("1e+06", 1_000_000), ("9007199254740993", 9007199254740993)],
)
def test_a_whole_number_is_one_however_a_tuning_job_writes_it(written, value):
    loaded = loading.load_config(None, [f"data.shuffle_examples={written}"]).data.shuffle_examples
    assert (loaded, type(loaded)) == (value, int)


@pytest.mark.parametrize("value", ["none", "embeddings", "layers:0", "layers:12", "encoder"])
def test_what_is_frozen_is_a_word_or_a_number_of_layers(preset, value):
    assert loading.load_config(None, [f"model.freeze={value}"]).model.freeze == value
    assert loading.load_config(preset(f"model: {{freeze: '{value}'}}")).model.freeze == value


@pytest.mark.parametrize(
    ("key", "written", "required", "received"),
    [
        ("data.truncation", "off", "be 'head', 'tail', 'head_tail' or 'windows'", "False"),
        ("encoder", "off", "be a string", "False"),
        ("data.batch_size", "on", "be an integer", "True"),
        ("seed", "on", "be an integer", "True"),
        ("optimizer.learning_rate", "[1]", "be a number", "[1]"),
        ("optimizer.learning_rate", "on", "be a number", "True"),
        ("training.steps", "on", "be an integer", "True"),
        ("logging.progress", "7", "be true or false", "7"),
        ("model.freeze", "off", "be none, embeddings, layers:N (such as layers:3) or encoder", "False"),
        ("model.freeze", "layers", "be none, embeddings, layers:N (such as layers:3) or encoder", "'layers'"),
        ("data", "7", "be a section of keys", "7"),
    ],
)
def test_a_value_of_another_type_is_refused(preset, key, written, required, received):
    section, _, name = key.rpartition(".")
    text = f"{section}: {{{name}: {written}}}" if section else f"{name}: {written}"
    with pytest.raises(UsageError) as caught:
        loading.load_config(preset(text))
    (problem,) = caught.value.problems
    assert (problem.setting, problem.required, problem.received) == (key, required, received)
    assert (f"--{key}" in problem.advice) == (key != "data")


@pytest.mark.parametrize(
    ("override", "required"),
    [
        ("data.seq_length=2", "be at least 3"),
        ("data.batch_size=0", "be greater than 0"),
        ("data.batch_size=3.5", "be an integer"),
        ("data.truncation=middle", "be 'head', 'tail', 'head_tail' or 'windows'"),
        ("training.epochs=0", "be greater than 0"),
        ("training.steps=soon", "be an integer"),
        ("training.keep_checkpoints=2", "be at least 3"),
        ("optimizer.learning_rate=-1", "be greater than 0"),
        ("optimizer.learning_rate=nan", "be a finite number"),
        ("optimizer.learning_rate=inf", "be a finite number"),
        ("optimizer.warmup_fraction=1", "be less than 1"),
        ("model.dropout=1.5", "be less than 1"),
        ("seed=5000000000", "be less than 2147483648"),
        ("precision=float16", "be 'float32', 'bfloat16' or 'auto'"),
        ("training.label_smoothing=1", "be less than 1"),
        ("training.focal_gamma=11", "be at most 10"),
        ("training.class_weights=heavy", CLASS_WEIGHTS),
        ("training.class_weights={spam: 0}", CLASS_WEIGHTS),
        ("training.class_weights={spam: nan}", CLASS_WEIGHTS),
        ("training.class_weights={}", CLASS_WEIGHTS),
        ("training.class_weights={spam: [", CLASS_WEIGHTS),
        ("training.class_weights={spam: yes}", CLASS_WEIGHTS),
        ("training.class_weights={spam: [2]}", CLASS_WEIGHTS),
        ("training.class_weights={spam: 1, spam: 2}", CLASS_WEIGHTS),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_required(override, required):
    key, value = override.split("=")
    with pytest.raises(UsageError) as caught:
        loading.load_config(None, [override])
    (problem,) = caught.value.problems
    assert (problem.setting, problem.required, problem.received) == (key, required, repr(value))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("data.seq_lenght", "data.seq_length"),
        ("optimizer.learning-rate", "optimizer.learning_rate"),
        ("learning_rate", "optimizer.learning_rate"),
        ("batch_size", "data.batch_size"),
        ("training.learning_rate", "optimizer.learning_rate"),
        ("model.batch_size", "data.batch_size"),
        ("training.dropout", "model.dropout"),
        ("data.steps", "training.steps"),
        ("optimiser.learning_rate", "optimizer.learning_rate"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(wrong, right):
    with pytest.raises(UsageError) as caught:
        loading.load_config(None, [f"{wrong}=1"])
    (problem,) = caught.value.problems
    assert (problem.setting, problem.advice) == (wrong, f"The nearest is {right}.")


def test_a_key_like_no_other_is_answered_with_all_of_them():
    with pytest.raises(UsageError, match=r"xyzzy\. The keys are task, encoder,"):
        loading.load_config(None, ["xyzzy=1"])


@pytest.mark.parametrize("written", ["{spam: 10, yes: 0.5}", '{"spam": 10.0, "yes": 0.5}'])
def test_class_weights_are_a_mapping_however_they_are_written(preset, written):
    expected = {"spam": 10.0, "yes": 0.5}
    assert loading.load_config(None, [f"training.class_weights={written}"]).training.class_weights == expected
    text = f"training: {{class_weights: {written}}}"
    assert loading.load_config(preset(text)).training.class_weights == expected
    again = loading.load_config(preset(text), ["training.class_weights=none"])
    assert again.training.class_weights is None


def test_a_class_may_have_a_name_that_yaml_takes_for_something_else(preset):
    config = loading.load_config(None, ["training.class_weights={no: 2, on: 3, 01: 4, null: 5, ~: 6}"])
    expected = {"no": 2.0, "on": 3.0, "01": 4.0, "null": 5.0, "~": 6.0}
    assert config.training.class_weights == expected
    assert loading.load_config(preset(loading.dump_config(config))) == config


def test_every_error_is_reported_at_once(preset):
    path = preset(
        "data: {batch_size: none, seq_lenght: 128}\ntraining: {epochs: 1, steps: 2}\nfoo: 1\ndata_dir: gs:/a\n"
    )
    with pytest.raises(UsageError) as caught:
        loading.load_config(path, ["optimizer.learning_rate=fast", "nothing"])
    assert {problem.setting: problem.received for problem in caught.value.problems} == {
        "data.batch_size": "'none'",
        "data.seq_lenght": "data.seq_lenght",
        "foo": "foo",
        "--data_dir": "gs:/a",
        "optimizer.learning_rate": "'fast'",
        "--set": "'nothing'",
        "training.epochs or training.steps": "1 and 2",
    }


def test_a_preset_that_cannot_be_read_hides_no_other_error(preset):
    with pytest.raises(UsageError, match=r"learning_rate must [\s\S]*--config must"):
        loading.load_config(preset("data: [\n"), ["optimizer.learning_rate=fast"])


def test_epochs_and_steps_together_are_refused():
    with pytest.raises(UsageError, match=r"1\.5 and 200"):
        loading.load_config(None, ["training.epochs=1.5", "training.steps=200"])


@pytest.mark.parametrize("override", ["encoder", "=3", ""])
def test_an_override_without_key_and_value_is_refused(override):
    with pytest.raises(UsageError, match=r"--set must be section\.key=value"):
        loading.load_config(None, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "--config must hold a mapping of keys to values. Received: .*, which holds a list"),
        ("data: [\n", "--config must name a YAML file. Received: .*, which does not parse"),
    ],
)
def test_a_preset_that_is_no_mapping_is_refused(preset, text, message):
    with pytest.raises(UsageError, match=message):
        loading.load_config(preset(text))


def test_a_preset_that_is_no_text_or_is_not_there_is_refused(tmp_path):
    (tmp_path / "model.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UsageError, match="which does not parse"):
        loading.load_config(str(tmp_path / "model.yaml"))
    with pytest.raises(UsageError, match=r"--config must name a YAML file. Received: .*no.yaml \(No such file"):
        loading.load_config(str(tmp_path / "no.yaml"))


def test_an_empty_preset_changes_nothing(preset):
    assert loading.load_config(preset("# all defaults\n")) == Config()


def test_flags_win_over_overrides_and_overrides_over_the_preset(preset):
    path = preset("seed: 1\nencoder: a\ndata: {batch_size: 8, seq_length: 64}\n")
    loaded = loading.load_config(path, ["seed=2", "encoder=b", "data.batch_size=16"], {"encoder": "c"})
    assert (loaded.seed, loaded.encoder, loaded.task) == (2, "c", None)
    assert (loaded.data.batch_size, loaded.data.seq_length) == (16, 64)


@pytest.mark.parametrize("none", ["", "null", "none"])
def test_an_override_can_unset_what_the_preset_set(preset, none):
    assert loading.load_config(preset("training: {steps: 5}"), [f"training.steps={none}"]).training.steps is None


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("training.steps", None, None),
        ("training.steps", 7.0, 7),
        ("model.recompute", True, True),
        ("logging.mlflow", None, ""),
        ("training.class_weights", {"spam": 10}, {"spam": 10.0}),
    ],
)
def test_a_setting_may_be_a_value_of_python(preset, key, value, expected):
    loaded = loading.load_config(preset("training: {steps: 5}"), (), {key: value})
    assert schema.get_values(loaded, [key]) == {key: expected}


def test_a_length_that_is_unset_leaves_the_other_as_it_is(preset):
    path = preset("training: {epochs: 2}")
    assert loading.load_config(path, (), {"training.steps": None}).training.epochs == 2
    assert loading.load_config(path, (), {"training.steps": 9}).training.epochs is None


def test_of_a_run_s_configuration_paths_may_be_others(tmp_path):
    (tmp_path / "config.yaml").write_text(
        loading.dump_config(Config(seed=3, model=schema.ModelConfig(fused="on"))), encoding="utf-8"
    )
    settings = {"data_dir": "elsewhere", "logging.progress": False, "model.fused": "off"}
    loaded = loading.load_run_config(str(tmp_path), settings)
    assert (loaded.seed, loaded.data_dir, loaded.logging.progress, loaded.model.fused) == (3, "elsewhere", False, "off")
    with pytest.raises(UsageError) as caught:
        loading.load_run_config(str(tmp_path), {"seed": 3, "init_from": "runs/a"})
    assert [problem.setting for problem in caught.value.problems] == ["--seed", "--init_from"]
    with pytest.raises(UsageError, match="--model_dir must hold a run"):
        loading.load_run_config(str(tmp_path / "new"), {})


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optimizer.learning_rate=2e-5", "training.steps=7", "model.dropout=0", "logging.progress=off"],
        ["encoder=off", "task=csv", "data_dir=gs://bucket/größe: 1", "precision=auto", "training.epochs=1e-2"],
    ],
)
def test_what_is_dumped_loads_as_it_was(preset, overrides):
    first = loading.load_config(None, overrides)
    assert loading.load_config(preset(loading.dump_config(first))) == first


def test_every_preset_of_the_repository_loads():
    others = ("tune_", "sweep_")  # Studies and spaces.
    presets = sorted(path for path in (ROOT / "configs").glob("*.yaml") if not path.name.startswith(others))
    assert presets
    for path in presets:
        assert isinstance(loading.load_config(str(path)), Config)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1


def test_off_is_a_word_where_one_is_required(tmp_path):
    path = tmp_path / "preset.yaml"
    path.write_text("model: {compile: off, recompute: on, fused: on}")
    model = loading.load_config(str(path)).model
    assert (model.compile, model.recompute, model.fused) == ("off", True, "on")
    path.write_text(loading.dump_config(loading.load_config(str(path))))
    assert loading.load_config(str(path)).model == model


def test_what_a_run_made_of_auto_is_no_difference():
    started = loading.load_config(None, ["precision=bfloat16", "eval_precision=bfloat16", "model.compile=xla"])
    resumed = loading.load_config(None, ["precision=auto", "eval_precision=auto", "model.compile=auto"])
    assert loading.resolve_as(started, resumed) == started
    assert loading.resolve_as(started, loading.load_config(None, [])) == loading.load_config(None, [])


def test_differences_name_what_may_not_change_and_both_values():
    old = loading.load_config(None, ["seed=1", "optimizer.learning_rate=1e-4"])
    new = loading.load_config(None, ["seed=2", "optimizer.learning_rate=2e-5", "model.dropout=0.2"])
    assert loading.find_differences(old, new) == [
        "seed: 1 in the run, 2 here",
        "optimizer.learning_rate: 0.0001 in the run, 2e-05 here",
        "model.dropout: None in the run, 0.2 here",
    ]


def test_paths_encoder_and_logging_may_differ_when_a_run_resumes():
    moved = ["data_dir=d", "encoder=e", "preprocess=p", "logging.tensorboard=off", "logging.progress=off"]
    assert loading.find_differences(Config(), loading.load_config(None, moved)) == []


def test_changed_settings_are_read_back_from_their_flags():
    given = ["training.class_weights={no: 2, ja 😀: 0.5}", "logging.progress=off", "model.dropout=0", "encoder=a b"]
    config = loading.load_config(None, given)
    changed = loading.changed_settings(config)
    assert list(changed) == ["encoder", "training.class_weights", "model.dropout", "logging.progress"]
    values = {key: loading.format_value(value) for key, value in changed.items()}
    assert values["training.class_weights"] == '{"no": 2.0, "ja 😀": 0.5}'
    assert loading.load_config(None, (), values) == config
    assert loading.format_value(None) == "none"
