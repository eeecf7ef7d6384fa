"""The archive that GLUE's server scores: a file for each test set, without folders."""

import io
import zipfile
from collections.abc import Mapping, Sequence

from trainer.glue.suite import SUBMISSION_FILES
from trainer.storage import fs

SUBMISSION_FILE = "submission.zip"
# Of every member, so that the same predictions are the same bytes: the earliest that the format knows.
_DATE = (1980, 1, 1, 0, 0, 0)


def format_predictions(indexes: Sequence[str], labels: Sequence[str]) -> str:
    """A file of the submission: the header "index", "prediction", and a line for each row."""
    rows = (f"{index}\t{label}\n" for index, label in zip(indexes, labels, strict=True))
    return "index\tprediction\n" + "".join(rows)


def write_submission(path: str, files: Mapping[str, str]) -> None:
    """Write a .zip of the files, name -> content, in the order of SUBMISSION_FILES."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in SUBMISSION_FILES:
            if name in files:
                member = zipfile.ZipInfo(f"{name}.tsv", _DATE)
                member.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(member, files[name])
    fs.write_bytes(path, buffer.getvalue())


def missing_files(files: Mapping[str, str]) -> list[str]:
    """The files that GLUE's server asks for and that are not there."""
    return [f"{name}.tsv" for name in SUBMISSION_FILES if name not in files]
