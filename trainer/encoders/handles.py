"""Handles of pretrained models: each way to write the same model of TensorFlow Hub or Kaggle has one normal form."""

import dataclasses
import re
import urllib.parse

from trainer.errors import Problem, UsageError

TFHUB, KAGGLE = "tfhub.dev", "kaggle.com"
# Kaggle's name of TensorFlow 2, as its API spells it. Its web pages write TensorFlow2.
FRAMEWORK = "tensorFlow2"

_SCHEME = re.compile(r"https?://", re.IGNORECASE)
# owner/model/framework/variation, and the version, which a page's address may lack.
_KAGGLE_PATH = re.compile(r"([^/]+)/([^/]+)/([^/]+)/([^/]+)(?:/(\d+))?")
# The words of the addresses that Kaggle's pages had in 2023 and 2024.
_OLD_WORDS = re.compile(r"/(?:frameworks|variations|versions)/")


@dataclasses.dataclass(frozen=True)
class Handle:
    """A model on a server, in its normal form."""

    site: str  # tfhub.dev, kaggle.com, or the host of another server.
    path: str  # owner/name/version; Kaggle's owner/model/framework/variation/version; another server's path and query.
    url: str  # What tensorflow-hub downloads; for Kaggle the model's page.

    @property
    def model(self) -> str:
        """The path without the version."""
        return re.sub(r"/\d+$", "", self.path)

    @property
    def mirror_folder(self) -> str:
        """The model's folder in a mirror, relative to the mirror's."""
        return f"{self.site}/{self.path}"


def parse_handle(text: str, flag: str) -> Handle | None:
    """The handle that `text` names, in its normal form; None if it is a name or a folder.

    What names the same model makes equal handles: the scheme, the query and slashes at the end do not count, nor do
    capitals on Kaggle, whose names have none. An address on another server stays as it is: all of it may count.

    `flag` is the one that names the model. Raises UsageError for an address on Kaggle that names no version of a
    TensorFlow 2 model.
    """
    scheme = _SCHEME.match(text)
    host, _, rest = text[scheme.end() if scheme else 0 :].partition("/")
    host = host.lower().removeprefix("www.")
    path = re.sub("/+", "/", re.split(r"[?#]", rest)[0]).strip("/")
    if host == TFHUB and "/" in path:
        return Handle(TFHUB, path, f"https://{TFHUB}/{path}")
    if host == KAGGLE:
        return _parse_kaggle_path(path.removeprefix("models/"), text, flag)
    if scheme:
        return Handle(urllib.parse.quote(host), urllib.parse.quote(rest), text)
    match = _KAGGLE_PATH.fullmatch(text.strip("/"))
    if match and match[3].lower() == FRAMEWORK.lower():
        return _parse_kaggle_path(text.strip("/"), text, flag)
    return None


def _parse_kaggle_path(path: str, text: str, flag: str) -> Handle:
    match = _KAGGLE_PATH.fullmatch(_OLD_WORDS.sub("/", path))
    if not match or match[3].lower() != FRAMEWORK.lower() or not match[5]:
        required = f"name a version of a TensorFlow 2 model on Kaggle: OWNER/MODEL/{FRAMEWORK}/VARIATION/VERSION"
        advice = "Add the version, a number that the model's page shows." if match and not match[5] else ""
        raise UsageError(Problem(flag, required, text, advice))
    owner, model, _, variation, version = match.groups()
    normal = f"{owner.lower()}/{model.lower()}/{FRAMEWORK}/{variation.lower()}/{int(version)}"
    return Handle(KAGGLE, normal, f"https://www.{KAGGLE}/models/{normal}")
