import os

import pytest
from helpers import ROOT, outcome

from trainer.runtime import tensorflow_variables


@pytest.mark.parametrize("given", [None, "77"])
@pytest.mark.parametrize("name", tensorflow_variables.DEFAULTS)
def test_importing_the_package_sets_a_variable_that_is_not_set(name, given):
    environment = {key: value for key, value in os.environ.items() if key != name}
    environment |= {} if given is None else {name: given}
    _, out, _ = outcome(f"import trainer.errors, os; print(os.environ[{name!r}])", env=environment)
    assert out.strip() == (given or tensorflow_variables.DEFAULTS[name])


def test_no_module_imports_tensorflow_before_the_variables_are_set():
    code = "import trainer, sys; print('tensorflow' in sys.modules)"
    assert outcome(code)[1] == "False\n"


@pytest.mark.parametrize("file", ["Dockerfile", "Dockerfile.tpu"])
@pytest.mark.parametrize(("name", "value"), tensorflow_variables.ONEDNN_VARIABLES.items())
def test_the_images_set_it_for_whatever_runs_in_them(file, name, value):
    assert f" {name}={value} " in (ROOT / file).read_text(encoding="utf-8")
