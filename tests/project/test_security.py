"""No credential is read, logged or written; nothing that came from elsewhere is run.

What leads out of a folder is refused where it is read: test_sources, test_records, test_checkpoint, test_buckets.
"""

import ast
import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import gcs
from helpers import ROOT

from trainer.data import sources
from trainer.storage import preflight

SOURCES = sorted([*(ROOT / "trainer").glob("*.py"), *(ROOT / "scripts").glob("*.py")])

# --- The source ---------------------------------------------------------------------------------------

RUNNING = {"eval", "exec", "__import__", "py_function", "numpy_function", "unsafe_load", "full_load"}
RUNNING |= {"system", "popen", "getoutput", "getstatusoutput", "load_all", "unsafe_load_all", "allow_pickle"}
UNPACKING = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
# zipfile takes what leads out of the folder off the names; tarfile's needs a filter.
EXTRACTING = {("importing.py", "extractall")}
SECRET = ("TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "API_KEY", "KAGGLE_KEY", "KAGGLE_USERNAME", "ACCESS_KEY")
PLACES = ("application_default_credentials", ".netrc", ".kaggle", ".huggingface", ".config/gcloud", ".boto")


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def owner(node: ast.Call) -> str:
    """The module of module.function(...)."""
    return getattr(node.func.value, "id", "") if isinstance(node.func, ast.Attribute) else ""


def is_environ(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "environ"


def wrong(name: str, source: str) -> list[str]:
    """What a file should not hold, with its lines."""
    found = []
    tree = ast.parse(source)
    above = {below: node for node in ast.walk(tree) for below in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        what = ""
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            if {part.split(".")[0] for part in names} & UNPACKING:
                what = "unpickling"
        elif isinstance(node, ast.Call):
            if called(node) in RUNNING:
                what = called(node)
            elif (owner(node), called(node)) == ("yaml", "load"):
                what = "yaml.load"
            elif called(node) in ("extract", "extractall") and (name, called(node)) not in EXTRACTING:
                what = called(node)
            elif any(keyword.arg in ("shell", "allow_pickle") for keyword in node.keywords):
                what = "shell or allow_pickle"
        elif is_environ(node):
            parent = above[node]
            handed = isinstance(parent, ast.Call) and node in parent.args and owner(parent) in ("cluster", "service")
            if not (isinstance(parent, ast.Attribute | ast.Subscript | ast.Dict) or handed):
                what = "the whole environment"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            word = node.value.upper()
            if (word.isidentifier() and word == node.value and any(part in word for part in SECRET)) or any(
                place in node.value for place in PLACES
            ):
                what = "a credential by its name"
        if what:
            found.append(f"{name}:{node.lineno}: {what}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_file_runs_nothing_that_it_was_given_and_names_no_credential(path):
    assert wrong(path.name, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        *("import pickle", "from joblib import load", "eval(x)", "exec(x)", "yaml.load(x)", "yaml.unsafe_load(x)"),
        *("tf.py_function(f, x, y)", "os.system(x)", "subprocess.run(x, shell=True)", "np.load(x, allow_pickle=True)"),
        *("archive.extractall(x)", "archive.extract(x, y)", "print(os.environ)", "f'{os.environ}'"),
        *("json.dumps(dict(os.environ))", "tarfile.open(x).extractall(y)"),
        *("os.environ['HF_TOKEN']", "os.environ.get('KAGGLE_KEY')", "os.getenv('GOOGLE_APPLICATION_CREDENTIALS')"),
        *("open('~/.config/gcloud/application_default_credentials.json')", "open('~/.netrc')"),
    ],
)  # fmt: skip
def test_the_look_at_a_file_sees_it(line):
    assert wrong("a.py", line)


def test_the_document_lists_the_permissions_that_are_asked_for():
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"`(storage\.objects\.\w+)`", page)) == preflight.WRITE_PERMISSIONS
    assert preflight.WRITE_PERMISSIONS[: len(preflight.READ_PERMISSIONS)] == preflight.READ_PERMISSIONS
    assert f"more than {sources.MEMBER_BYTES >> 20} MB" in page


# --- A run --------------------------------------------------------------------------------------------

PLANTED = "planted-7f3b91c2"
VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "KAGGLE_KEY", "AWS_SECRET_ACCESS_KEY", "GOOGLE_API_KEY", "NETRC")


@pytest.fixture
def credentials(simulator, tmp_path) -> tuple[dict[str, str], list[bytes]]:
    """(an environment full of credentials, every word of them that may be in no output)."""
    account = json.loads((simulator.folder / "credentials.json").read_text())
    account |= {"private_key_id": f"{PLANTED}-id", "client_id": f"{PLANTED}-client"}
    (tmp_path / "key.json").write_text(json.dumps(account))
    environment = simulator.environment(
        **{name: f"{PLANTED}-{name}" for name in VARIABLES},
        GOOGLE_AUTH_TOKEN_FOR_TESTING=f"{PLANTED}-tensorflow",
        GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path / "key.json"),
        STORAGE_RETRY_SECONDS="6",
    )
    key = [line.encode() for line in account["private_key"].splitlines()[1:-1]]
    return environment, [PLANTED.encode(), b"of-the-simulator", b"PRIVATE KEY", *key]


def everything(simulator: gcs.Simulator, environment: dict[str, str], folder: Path) -> dict[str, bytes]:
    """Every object of the bucket, and the log of the simulator, by name."""
    code = "import sys\nfrom trainer.storage import fs\nfs.copy_folder('gs://bucket', sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, env=environment, check=True, capture_output=True)
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("**/*") if path.is_file()}
    return {**found, "the simulator's log": json.dumps(simulator.log()).encode()}


def test_no_credential_is_in_anything_that_a_run_leaves(simulator, credentials, prepared, tiny, tmp_path):
    environment, secrets = credentials
    said: dict[str, bytes] = {}

    def run(name: str, code: int, *arguments: object, faults: tuple[dict, ...] = (), **changes: str) -> None:
        with simulator.faults(*faults) if faults else contextlib.nullcontext():
            done = subprocess.run(
                [sys.executable, *map(str, arguments)],
                cwd=ROOT,
                env=environment | changes,
                capture_output=True,
                timeout=200,
            )
        assert done.returncode == code, done.stderr[-2000:].decode()
        said.update({f"{name}, standard output": done.stdout, f"{name}, standard error": done.stderr})

    settings = ("training.steps=2", "data.batch_size=8", "data.seq_length=16", "training.save_every=1")
    job = ("-m", "trainer.task", f"--encoder={tiny}", f"--data_dir={prepared}", "--verbosity=1")
    job += ("--model_dir=gs://bucket/run", *(f"--set={setting}" for setting in settings))
    run("a job", 0, *job)
    # Failures, each of which says what it received: no right, a token that is refused, a key file that is none.
    run("no right", 2, *job, faults=({"do": "deny", "permission": "storage.objects.create"},))
    run("a refusal", 2, *job, faults=({"do": "status", "status": 401, "times": -1},))
    broken = tmp_path / "broken.json"
    broken.write_text(f'{{"type": "service_account", "private_key": "{PLANTED}", ')
    run("a broken key", 2, *job, GOOGLE_APPLICATION_CREDENTIALS=str(broken))
    # With its whole traceback, since nothing catches it here.
    failing = {"do": "status", "status": 403, "match": "POST .*upload", "times": -1}
    write = "from trainer.storage import fs; fs.write_text('gs://bucket/x', 'x')"
    run("a failure half-way", 1, "-c", write, faults=(failing,))
    left = {**said, **everything(simulator, environment, tmp_path / "bucket")}
    assert {"run/result.json", "run/config.yaml", "run/export/saved_model.pb"} <= set(left)
    assert len([name for name in left if "events.out" in name]) >= 1
    assert [(name, word) for name, data in left.items() for word in secrets if word in data] == []
