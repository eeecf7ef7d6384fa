"""No credential is read, logged or written, and nothing that was downloaded is executed.

Names that lead out of a folder are rejected where they are read; their tests are next to those readers.
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
from helpers import ROOT, excerpt, python

from trainer.data import movie_reviews
from trainer.storage import preflight

SOURCES = sorted([*(ROOT / "trainer").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])

# --- The source ---------------------------------------------------------------------------------------

EXECUTING = {"eval", "exec", "__import__", "py_function", "numpy_function", "unsafe_load", "full_load"}
EXECUTING |= {"system", "popen", "getoutput", "getstatusoutput", "load_all", "unsafe_load_all", "allow_pickle"}
UNPACKING = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
# zipfile removes from the names what leads out of the folder; tarfile would need a filter.
EXTRACTING = {("embedded.py", "extractall"), ("embedded.py", "extract")}
SECRET = ("TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "API_KEY", "KAGGLE_KEY", "KAGGLE_USERNAME", "ACCESS_KEY")
PLACES = ("application_default_credentials", ".netrc", ".kaggle/", ".huggingface", ".config/gcloud", ".boto")


def called_name(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def called_module(node: ast.Call) -> str:
    """The module of module.function(...)."""
    return getattr(node.func.value, "id", "") if isinstance(node.func, ast.Attribute) else ""


def is_environ(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "environ"


# Modules that read their own variables from the environment that they are given.
READING_ENVIRONMENT = ("cluster_config", "strategies", "vertex_env")


def find_violations(name: str, source: str) -> list[str]:
    """What a file must not contain, with its lines."""
    violations = []
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        what = ""
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            if {part.split(".")[0] for part in names} & UNPACKING:
                what = "unpickling"
        elif isinstance(node, ast.Call):
            if called_name(node) in EXECUTING:
                what = called_name(node)
            elif (called_module(node), called_name(node)) == ("yaml", "load"):
                what = "yaml.load"
            elif called_name(node) in ("extract", "extractall") and (name, called_name(node)) not in EXTRACTING:
                what = called_name(node)
            elif any(keyword.arg in ("shell", "allow_pickle") for keyword in node.keywords):
                what = "shell or allow_pickle"
        elif is_environ(node):
            parent = parents[node]
            passed = isinstance(parent, ast.Call) and node in parent.args
            allowed = passed and called_module(parent) in READING_ENVIRONMENT
            if not (isinstance(parent, ast.Attribute | ast.Subscript | ast.Dict) or allowed):
                what = "the complete environment"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            word = node.value.upper()
            if (word.isidentifier() and word == node.value and any(part in word for part in SECRET)) or any(
                place in node.value for place in PLACES
            ):
                what = "a credential by its name"
        if what:
            violations.append(f"{name}:{node.lineno}: {what}")
    return violations


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_executes_no_data_and_names_no_credential(path):
    assert find_violations(path.name, path.read_text(encoding="utf-8")) == []


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
def test_a_violation_is_found(line):
    assert find_violations("a.py", line)


def test_the_document_lists_the_required_permissions():
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"`(storage\.objects\.\w+)`", page)) == preflight.WRITE_PERMISSIONS
    assert preflight.WRITE_PERMISSIONS[: len(preflight.READ_PERMISSIONS)] == preflight.READ_PERMISSIONS
    assert f"more than {movie_reviews.MAX_MEMBER_BYTES >> 20} MB" in page


# --- A run --------------------------------------------------------------------------------------------

PLANTED = "planted-7f3b91c2"
VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "KAGGLE_KEY", "AWS_SECRET_ACCESS_KEY", "GOOGLE_API_KEY", "NETRC")


@pytest.fixture
def credentials(simulator, tmp_path) -> tuple[dict[str, str], list[bytes]]:
    """(an environment full of credentials, the parts of them that no output may contain)."""
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
    """Every object of the bucket by its name, and the log of the simulator."""
    code = "import sys\nfrom trainer.storage import fs\nfs.copy_folder('gs://bucket', sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, env=environment, check=True, capture_output=True)
    objects = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("**/*") if path.is_file()}
    return {**objects, "the simulator's log": json.dumps(simulator.log()).encode()}


def test_no_output_of_a_run_contains_a_credential(simulator, credentials, prepared, tiny, tmp_path):
    environment, secrets = credentials
    outputs: dict[str, bytes] = {}

    def run(name: str, code: int, *arguments: object, faults: tuple[dict, ...] = (), **changes: str) -> None:
        with simulator.faults(*faults) if faults else contextlib.nullcontext():
            done = python(*arguments, env=environment | changes, text=False)
        assert done.returncode == code, excerpt(done.stderr.decode())
        outputs.update({f"{name}, standard output": done.stdout, f"{name}, standard error": done.stderr})

    settings = ("training.steps=2", "data.batch_size=8", "data.seq_length=16", "training.save_every=1")
    job = ("-m", "trainer.task", f"--encoder={tiny}", f"--data_dir={prepared}", "--verbosity=1")
    job += ("--model_dir=gs://bucket/run", *(f"--set={setting}" for setting in settings))
    run("a job", 0, *job)
    # Failures that show what was received: a missing permission, a rejected token, a key file that cannot be read.
    run("no permission", 2, *job, faults=({"do": "deny", "permission": "storage.objects.create"},))
    run("a rejection", 2, *job, faults=({"do": "status", "status": 401, "times": -1},))
    broken = tmp_path / "broken.json"
    broken.write_text(f'{{"type": "service_account", "private_key": "{PLANTED}", ')
    run("a broken key", 2, *job, GOOGLE_APPLICATION_CREDENTIALS=str(broken))
    # With its complete traceback, since nothing catches it here.
    failing = {"do": "status", "status": 403, "match": "POST .*upload", "times": -1}
    write = "from trainer.storage import fs; fs.write_text('gs://bucket/x', 'x')"
    run("a traceback", 1, "-c", write, faults=(failing,))
    left = {**outputs, **everything(simulator, environment, tmp_path / "bucket")}
    assert {"run/result.json", "run/config.yaml", "run/export/saved_model.pb"} <= set(left)
    assert len([name for name in left if "events.out" in name]) >= 1
    assert [(name, word) for name, data in left.items() for word in secrets if word in data] == []
