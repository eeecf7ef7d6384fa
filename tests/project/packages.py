"""The packages of trainer/, their order, and the paths of their modules."""

from helpers import ROOT

# Lowest first. A package imports from itself and from those in lower rows only.
ROWS = (
    ("errors",),
    ("child_process",),
    ("storage", "distributed"),
    ("runtime",),
    ("config", "data", "encoders"),
    ("evals", "export", "preparation"),
    ("report",),
    ("train",),
    ("api",),
    ("task",),
)
# Nothing that trains imports these. What they may import is everything below `task`.
ASIDE = ("benchmarks", "cloud", "comparison", "encoder_check", "glue", "sweeps", "tpu_check")

# `encoders.native` for trainer/encoders/native.py
PATHS = {
    ".".join(path.relative_to(ROOT / "trainer").with_suffix("").parts): path
    for path in (ROOT / "trainer").rglob("*.py")
    if path != ROOT / "trainer/__init__.py"
}
