"""What Vertex AI offers to train on: machine types, accelerators, TPU topologies, and where."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Host:
    """One machine of a job."""

    type: str  # such as n1-standard-8
    accelerator: str = ""  # a name of Vertex's AcceleratorType; "" where there is none, or the type implies it
    count: int = 0  # of accelerators, as the job has to say it
    topology: str = ""  # of a TPU, such as 2x2
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
