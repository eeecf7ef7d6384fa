import pytest
import tensorflow as tf

from trainer.distributed import strategies
from trainer.errors import UsageError
from trainer.train import compilation


def test_auto_compiles_on_accelerators_for_native_encoders_only(monkeypatch):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    resolve = compilation.resolve_compile
    assert resolve("auto", native=True, strategy=strategy) == "off"
    assert resolve("xla", native=True, strategy=strategy) == "xla"
    monkeypatch.setattr(strategies, "has_accelerator", lambda _: True)  # There is no GPU here.
    assert resolve("auto", native=True, strategy=strategy) == "xla"
    assert resolve("auto", native=False, strategy=strategy) == "off"
    assert resolve("off", native=True, strategy=strategy) == "off"


def test_auto_fuses_native_encoders_on_cpus(monkeypatch):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    resolve = compilation.resolve_fused
    assert resolve("auto", "off", native=True, strategy=strategy) == "on"
    assert resolve("auto", "off", native=False, strategy=strategy) == "off"
    assert resolve("auto", "xla", native=True, strategy=strategy) == "off"
    assert resolve("off", "off", native=True, strategy=strategy) == "off"
    monkeypatch.setattr(strategies, "has_accelerator", lambda _: True)  # There is no GPU here.
    assert resolve("auto", "off", native=True, strategy=strategy) == "off"
    assert resolve("on", "off", native=True, strategy=strategy) == "on"


def test_fused_layers_are_refused_where_whole_steps_are_compiled():
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with pytest.raises(UsageError, match=r"model.fused must be auto or off .* Received: on"):
        compilation.resolve_fused("on", "xla", native=True, strategy=strategy)


def test_steps_are_compiled_only_where_that_was_chosen():
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    assert compilation.compiles_steps("xla", strategy)
    assert not compilation.compiles_steps("off", strategy)
    assert compilation.compiles_each_shape("xla", strategy)
    assert not compilation.compiles_each_shape("off", strategy)
