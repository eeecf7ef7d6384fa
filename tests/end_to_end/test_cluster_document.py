"""What docs/distributed.md shows for Kubernetes and SLURM, run here as processes that train to the end.

Neither runs here: stand-ins start the workers, set the variables that they set, and start them again as they would.
Changed are the data, the encoder and the folders, and the addresses, since all workers are on one machine: its name
instead of the hosts', and a port for each.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, excerpt
from interruptions import checkpoint_list, committed_step, read_metrics

import trainer
from trainer.cloud import job_request, machine_types

STEPS = 150
DOCUMENT = (ROOT / "docs/distributed.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```\w+ (kubernetes|slurm)\n(.*?)^```", DOCUMENT, re.M | re.S))
SERVICE, JOB = yaml.safe_load_all(BLOCKS["kubernetes"])
TRAIN = (
    "python -m trainer.task --encoder=/shared/encoders/minilm --data_dir=/shared/data/mine"
    " --model_dir=/shared/runs/mine"
)


def free_pair() -> int:
    """The first of two ports on which nothing listens, in the range that the SLURM script takes its ports from."""
    for port in range(20000 + os.getpid() % 9000, 29999):
        try:
            with socket.create_server(("", port)), socket.create_server(("", port + 1)):
                return port
        except OSError:
            continue
    raise AssertionError


@pytest.fixture
def job(make_job_command, tmp_path):
    """The words of the small job, in place of TRAIN."""
    flags = make_job_command("multi_worker", STEPS).flags
    return f"python -m trainer.task {' '.join(flags)} --model_dir={tmp_path / 'run'}"


def changed(text: str, changes: dict[str, str]) -> str:
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    return text


def environment(**variables: str) -> dict[str, str]:
    """Without what this test run was given of a cluster."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("TF_CONFIG", "CLUSTER_SPEC")}
    return {**inherited, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables}


def wait_for_checkpoint(folder: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 600
    while not checkpoint_list(folder):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_finished(folder: Path) -> None:
    assert json.loads((folder / "result.json").read_text())["steps"] == STEPS
    assert (folder / "export/saved_model.pb").is_file()
    steps = [line["step"] for line in read_metrics(folder, "train")]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS


# --- Kubernetes -------------------------------------------------------------------------------------

POD = JOB["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def action(code: int, conditions: tuple[str, ...] = ()) -> str:
    """What the Job's controller does about a pod that failed: the first rule that fits."""
    for rule in JOB["spec"]["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes")
        if codes and (code in codes["values"]) == (codes["operator"] == "In"):
            return rule["action"]
        if any(pattern["type"] in conditions for pattern in rule.get("onPodConditions", [])):
            return rule["action"]
    return "Count"


def test_the_parts_of_the_manifest_name_each_other():
    name, spec = JOB["metadata"]["name"], JOB["spec"]
    assert SERVICE["spec"]["clusterIP"] == "None"
    assert SERVICE["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert POD["subdomain"] == SERVICE["metadata"]["name"]
    assert f"{name}-$index.{POD['subdomain']}:{CONTAINER['ports'][0]['containerPort']}" in CONTAINER["args"][0]
    (workers,) = (int(variable["value"]) for variable in CONTAINER["env"] if variable["name"] == "WORKERS")
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", workers, workers)
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}
    machine, _ = machine_types.resolve_machine("cpu")
    assert CONTAINER["image"] == job_request.default_image("PROJECT", "REGION", machine, trainer.__version__)


def test_pods_are_started_again_on_75_alone_or_with_their_node():
    assert POD["restartPolicy"] == "Never"  # Otherwise a pod failure policy is refused.
    assert [action(code) for code in (75, 1, 2, 137, 139)] == ["Ignore", *["FailJob"] * 4]
    assert [action(code, ("DisruptionTarget",)) for code in (75, 137, 143)] == ["Ignore"] * 3


class Pods:
    """The Job's pods, each with its index and, as its own, a shell that becomes the worker."""

    def __init__(self, folder: Path, job: str):
        port = free_pair()
        address = {"hubtune-$index.hubtune:2222": f"127.0.0.1:$(({port} + index))"}
        self.command = [*CONTAINER["command"], changed(CONTAINER["args"][0], {TRAIN: job, **address})]
        self.log, self.running, self.codes = folder / "log", {}, []

    def start(self, index: int) -> None:
        given = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}
        variables = environment(**given, JOB_COMPLETION_INDEX=str(index))
        with self.log.open("a") as log:
            self.running[index] = subprocess.Popen(self.command, cwd=ROOT, env=variables, stdout=log, stderr=log)

    def run_to_end(self, timeout_s: float = 900) -> None:
        deadline = time.monotonic() + timeout_s
        while self.running:
            assert time.monotonic() < deadline, excerpt(self.log.read_text())
            for index, process in list(self.running.items()):
                code = process.poll()
                if code is None:
                    continue
                self.codes.append(code)
                del self.running[index]
                if code:
                    assert action(code) == "Ignore", excerpt(self.log.read_text())
                    self.start(index)
            time.sleep(0.1)


@pytest.mark.long
def test_pods_train_to_the_end_and_are_started_again_after_a_stop(job, tmp_path):
    pods = Pods(tmp_path, job)
    try:
        for index in range(JOB["spec"]["completions"]):
            pods.start(index)
        wait_for_checkpoint(tmp_path / "run", pods.running[0])
        pods.running[1].send_signal(signal.SIGTERM)
        pods.run_to_end()
    finally:
        for process in pods.running.values():
            process.kill()
            process.wait()
    assert pods.codes == [75, 75, 0, 0]
    assert_finished(tmp_path / "run")


# --- SLURM ------------------------------------------------------------------------------------------

# `scontrol show hostnames LIST` prints a name a line; `scontrol requeue ID` is noted.
SCONTROL = """#!/bin/bash
if [ "$1 $2" = "show hostnames" ]; then echo "${3//,/$'\\n'}"; else echo "$@" >> "$SCONTROL_CALLS"; fi
"""
# A task for each host. It sends SIGTERM on to them, as slurmd does before the time limit; its code is their highest.
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
tasks=()
for ((index = 0; index < 2; index++)); do SLURM_PROCID=$index "$@" & tasks+=($!); done
trap 'kill -TERM "${tasks[@]}"' TERM
code=0
for task in "${tasks[@]}"; do
  while :; do  # A signal that is trapped ends wait.
    wait "$task"; ended=$?
    kill -0 "$task" 2>/dev/null || break
  done
  ((ended > code)) && code=$ended
done
exit $code
"""


@pytest.mark.long
def test_a_slurm_job_is_queued_again_after_a_stop_and_trains_to_the_end(job, tmp_path):
    for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    addresses = {'\\"$host:$port\\"': '\\"$host:$((port++))\\"'}
    (tmp_path / "job.sh").write_text(changed(BLOCKS["slurm"], {TRAIN: job, **addresses}))
    calls = tmp_path / "calls"
    variables = environment(
        SLURM_JOB_ID=str(free_pair()), SLURM_JOB_NODELIST="127.0.0.1,localhost", SCONTROL_CALLS=str(calls)
    )
    variables["PATH"] = f"{tmp_path / 'bin'}:{variables['PATH']}"

    def submit() -> subprocess.Popen:
        with (tmp_path / "log").open("a") as log:
            return subprocess.Popen(
                ["bash", tmp_path / "job.sh"], cwd=ROOT, env=variables, stdout=log, stderr=log, start_new_session=True
            )

    process = submit()
    try:
        wait_for_checkpoint(tmp_path / "run", process)
        (srun,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(srun), signal.SIGTERM)
        assert process.wait(60) == 75, excerpt((tmp_path / "log").read_text())
        assert calls.read_text() == f"requeue {variables['SLURM_JOB_ID']}\n"
        assert 0 < committed_step(tmp_path / "run") < STEPS
        process = submit()
        assert process.wait(900) == 0, excerpt((tmp_path / "log").read_text())
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert calls.read_text().count("\n") == 1
    assert_finished(tmp_path / "run")
