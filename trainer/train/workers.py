"""The meeting of a job's workers, before anything is computed: do they run the same job, and see the same model_dir?

A model_dir on a disk is shared if all machines have mounted the same disk there. The chief proves it: it leaves a file
of a new name, its mark, and every worker has to find it. An old file, such as identity.json, would prove nothing where
the folder was once copied; and a client of NFS may remember what a known name was, but has to ask for a new one.
"""

import contextlib
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.distributed import rendezvous
from trainer.distributed.cluster_config import Cluster
from trainer.distributed.handshakes import Report
from trainer.errors import Problem, UsageError
from trainer.storage import fs, shared_disk
from trainer.train.run_files import RunFiles

MARK_PREFIX = ".seen-by-workers-"
# Longer than a disk shows an old state: acdirmax of nfs(5).
VISIBLE_WITHIN_S, POLL_S = 60.0, 0.5
# For workers that have met to say what they have found.
ANSWER_WITHIN_S = 30.0
_MODEL_DIR_STAGE = "model_dir"


def meet_workers(cluster: Cluster, files: RunFiles, job_signature: Mapping[str, Any], timeout_s: float) -> None:
    """Return once all workers have met, run the same job, and see the chief's model_dir.

    Raises what rendezvous.exchange_reports does, and UsageError on a worker that does not see it, within `timeout_s`
    for the workers to come, and VISIBLE_WITHIN_S at most to look for the mark.
    """
    with _leave_mark(files.root) if cluster.index == 0 else contextlib.nullcontext("") as mark:
        reports = rendezvous.exchange_reports(
            cluster, rendezvous.JOB_STAGE, Report(job_signature, mark=mark), timeout_s
        )
        limit_s = min(VISIBLE_WITHIN_S, timeout_s)
        problem = None if cluster.index == 0 else _find_folder_problem(cluster, files, reports[0].mark, limit_s)
        report = Report(job_signature, str(problem or ""))
        rendezvous.exchange_reports(cluster, _MODEL_DIR_STAGE, report, limit_s + ANSWER_WITHIN_S)
        if problem:
            raise UsageError(problem)


def refresh_folders(files: RunFiles) -> None:
    """Before a worker reads what another one has written: make a shared disk ask its server again."""
    for folder in (files.root, files.checkpoints, files.best):
        if not fs.in_bucket(folder):
            shared_disk.refresh(folder)


@contextlib.contextmanager
def _leave_mark(folder: str) -> Iterator[str]:
    """The mark in an existing folder, removed at the end. "" in a bucket, which is the same for everyone."""
    if fs.in_bucket(folder):
        yield ""
        return
    for name in fs.list_names(folder):
        if name.startswith(MARK_PREFIX):  # Of a chief that was killed.
            fs.remove(fs.join(folder, name))
    mark = f"{MARK_PREFIX}{uuid.uuid4().hex}"
    fs.write_text(fs.join(folder, mark), "")
    try:
        yield mark
    finally:
        fs.remove(fs.join(folder, mark))


def _find_folder_problem(cluster: Cluster, files: RunFiles, mark: str, limit_s: float) -> Problem | None:
    """Why this worker does not see the chief's model_dir, whose mark this is. None if it does."""
    if not mark and fs.in_bucket(files.root):
        return None
    deadline = time.monotonic() + limit_s
    while re.fullmatch(rf"{MARK_PREFIX}\w+", mark):
        refresh_folders(files)
        if fs.exists(fs.join(files.root, mark)):
            return None
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    required = "be a folder that all workers share"
    received = f"{files.root} on worker {cluster.index} ({cluster.addresses[cluster.index]}), which is not the chief's"
    advice = "Mount the same disk there on every machine (NFS, Filestore, a ReadWriteMany volume), or use gs://."
    return Problem("--model_dir", required, received, advice)
