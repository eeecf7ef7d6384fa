import pydantic
import pytest

from trainer.config import value_types


@pytest.mark.parametrize(
    ("accepted", "value", "expected"),
    [
        (value_types.Integer, "16.0", 16),  # as a tuning job writes it
        (value_types.Integer, "1e+06", 1_000_000),
        (value_types.Number, "1e-4", 1e-4),
        (value_types.SinkTarget, True, "true"),
        (value_types.ClassWeights, "{spam: 10}", {"spam": 10.0}),
        (value_types.ClassWeights, "balanced", "balanced"),
        (value_types.ClassWeights, None, None),
        (value_types.Freeze, "layers:12", "layers:12"),
    ],
)
def test_a_value_is_read_as_its_type(accepted, value, expected):
    assert pydantic.TypeAdapter(accepted).validate_python(value) == expected


@pytest.mark.parametrize(
    ("accepted", "value"),
    [
        (value_types.Integer, True),  # what YAML makes of `on`
        (value_types.Integer, "1.5"),
        (value_types.Number, False),
        (value_types.Number, "nan"),
        (value_types.Fraction, 1.0),
        (value_types.PositiveNumber, 0),
        (value_types.ClassWeights, {"spam": 0.0}),
        (value_types.ClassWeights, "{spam: 1, spam: 2}"),
        (value_types.Freeze, "layers:-1"),
        (value_types.Metric, "accuracy_score"),
    ],
)
def test_a_value_that_is_none_of_its_type_is_refused(accepted, value):
    with pytest.raises(pydantic.ValidationError):
        pydantic.TypeAdapter(accepted).validate_python(value)
