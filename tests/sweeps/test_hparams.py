from tensorboard.backend.event_processing import event_multiplexer
from tensorboard.plugins.hparams import metadata

from trainer.sweeps import hparams, results, trials


def read(folder):
    """(run -> what the plugin keeps of it, run -> tag -> [(step, value)]) as TensorBoard reads a folder."""
    reader = event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(folder))
    reader.Reload()
    plugin, scalars = {}, {}
    for run, tags in reader.Runs().items():
        contents = reader.GetAccumulator(run).PluginTagToContent("hparams") if tags else {}
        plugin[run] = {
            tag: metadata.parse_session_start_info_plugin_data(c) for tag, c in contents.items() if "start" in tag
        }
        scalars[run] = {tag: [(e.step, e.value) for e in reader.Scalars(run, tag)] for tag in tags["scalars"]}
    return plugin, scalars


def test_a_run_is_a_session_of_its_trials_group(build, leave, tmp_path):
    found = build({"grid": {"optimizer.learning_rate": [1e-3], "model.dropout": [None, 0.25]}})
    runs = trials.plan_runs(found, [0, 1], str(tmp_path / "sweep"))
    for run in runs[:3]:
        leave(run, [0.25, 0.75, 0.5])
    for _ in range(2):  # The second time it replaces the first.
        states = results.summarize_trials(map(results.read_run, runs), "accuracy")
        hparams.write_hparams(str(tmp_path / "sweep"), states, "accuracy")
    plugin, scalars = read(tmp_path / "sweep/tensorboard")
    sessions = [f"{run.trial.name}/seed_{run.seed}" for run in runs[:3]]
    assert sorted(plugin) == sorted([".", *sessions])
    (start,) = plugin[sessions[0]].values()
    assert start.group_name == runs[0].trial.name
    assert start.hparams["optimizer.learning_rate"].number_value == 1e-3
    assert start.hparams["model.dropout"].string_value == "none"
    (start,) = plugin[sessions[2]].values()
    assert start.hparams["model.dropout"].string_value == "0.25"
    assert scalars[sessions[0]] == {"validation/accuracy": [(100, 0.75)], "validation/loss": [(100, 0.25)]}
