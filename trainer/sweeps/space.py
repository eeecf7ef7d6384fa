"""The space of a sweep: a YAML file that names the settings to try, as a grid or by random draws.

grid:
  optimizer.learning_rate: [5e-5, 1e-4]
  data.truncation: [head, head_tail]
---
random:
  optimizer.learning_rate: {loguniform: [2e-5, 4e-4]}
  optimizer.warmup_fraction: {uniform: [0, 0.3]}
  data.batch_size: {choice: [16, 32]}
trials: 20
halving: {first_steps: 200, factor: 3}      # of either kind; optional
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import numpy as np
import pydantic
from pydantic import Field

from trainer.config import loading, yaml_file
from trainer.config.value_types import Integer, Number, PositiveInteger, PositiveNumber
from trainer.errors import Problem, UsageError

MAX_TRIALS = 1000
# Of a number that is drawn: enough for any setting, and short in a table.
DRAWN_DIGITS = 4

_STRICT = pydantic.ConfigDict(extra="forbid")

Value = bool | int | float | str | None
Values = Annotated[tuple[Value, ...], Field(min_length=1)]


@dataclasses.dataclass(frozen=True)
class Distribution:
    """What a setting is drawn from. One field is set."""

    __pydantic_config__ = _STRICT
    loguniform: tuple[PositiveNumber, PositiveNumber] | None = None  # (lowest, highest)
    uniform: tuple[Number, Number] | None = None
    choice: Values | None = None


@dataclasses.dataclass(frozen=True)
class Halving:
    """Successive halving (Jamieson and Talwalkar, AISTATS 2016, https://arxiv.org/abs/1502.07943).

    All trials train `first_steps` steps; the best 1/`factor` of them `factor` times as many, and so on.
    """

    __pydantic_config__ = _STRICT
    first_steps: PositiveInteger
    factor: Annotated[Integer, Field(ge=2)] = 3


@dataclasses.dataclass(frozen=True)
class Space:
    __pydantic_config__ = _STRICT
    grid: dict[str, Values] = dataclasses.field(default_factory=dict)  # By key of the configuration.
    random: dict[str, Distribution] = dataclasses.field(default_factory=dict)
    trials: PositiveInteger | None = None  # Draws, of a random space.
    seed: Annotated[Integer, Field(ge=0)] = 0  # Of the draws. The runs' seeds are those of --seeds.
    halving: Halving | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.grid, *self.random)


_ADAPTER = pydantic.TypeAdapter(Space)


def read_space(path: str) -> Space:
    """The space in a YAML file. Raises UsageError with every value in it that is wrong."""
    try:
        space = _ADAPTER.validate_python(yaml_file.read_yaml(path, "--space"))
    except pydantic.ValidationError as invalid:
        problems = []
        for error in invalid.errors():
            # Where a value may have several types, the last part of the location is a type.
            keys = dict.fromkeys(str(part) for part in error["loc"] if part not in ("bool", "int", "float", "str"))
            unknown = error["type"] in loading.UNKNOWN_KEY_ERRORS
            required = "be left out: it is not a key of a space" if unknown else loading.describe_requirement(error)
            problems.append(Problem(f"{'.'.join(keys)} in --space={path}", required, repr(error["input"])))
        raise UsageError(*problems) from None
    if problems := list(_find_problems(space, path)):
        raise UsageError(*problems)
    return space


def _find_problems(space: Space, path: str) -> Iterator[Problem]:
    where = f"in --space={path}"
    if bool(space.grid) == bool(space.random):
        received = "both" if space.grid else "neither"
        yield Problem(f"grid or random {where}", "have settings, one of the two", received)
    if bool(space.random) != (space.trials is not None):
        yield Problem(
            f"trials {where}", "be the number of draws of a random space, and of nothing else", f"{space.trials}"
        )
    count = space.trials if space.random else math.prod(map(len, space.grid.values()))
    if (count or 0) > MAX_TRIALS:
        yield Problem(f"The space {where}", f"have at most {MAX_TRIALS:,} trials", f"{count:,}")
    for key, distribution in space.random.items():
        setting = f"random.{key} {where}"
        given = {name: value for name, value in dataclasses.asdict(distribution).items() if value is not None}
        if len(given) != 1:
            required = "have one of loguniform: [lowest, highest], uniform: [lowest, highest], choice: [value, ...]"
            yield Problem(setting, required, ", ".join(given) or "none of them")
        for name, (low, high) in ((name, ends) for name, ends in given.items() if name != "choice"):
            if low >= high:
                yield Problem(setting, "have the lowest value first, and a higher one", f"{name}: [{low}, {high}]")


def draw_settings(space: Space) -> list[dict[str, Any]]:
    """The settings of each trial: all combinations of a grid, or the draws of a random space.

    Draw n depends on the seed and n alone, so that more trials add to those that were.
    """
    if space.grid:
        return [dict(zip(space.grid, values, strict=True)) for values in itertools.product(*space.grid.values())]
    return [_draw(space.random, np.random.default_rng([space.seed, trial])) for trial in range(space.trials or 0)]


def _draw(distributions: Mapping[str, Distribution], rng: np.random.Generator) -> dict[str, Any]:
    """A value for each setting, drawn in the order of their names."""
    drawn: dict[str, Any] = {}
    for key in sorted(distributions):
        distribution = distributions[key]
        if distribution.choice is not None:
            drawn[key] = distribution.choice[int(rng.integers(len(distribution.choice)))]
        elif distribution.loguniform is not None:
            low, high = distribution.loguniform
            drawn[key] = _shorten(math.exp(rng.uniform(math.log(low), math.log(high))))
        else:
            assert distribution.uniform is not None
            drawn[key] = _shorten(float(rng.uniform(*distribution.uniform)))
    return {key: drawn[key] for key in distributions}


def _shorten(value: float) -> float:
    return float(f"{value:.{DRAWN_DIGITS}g}")
