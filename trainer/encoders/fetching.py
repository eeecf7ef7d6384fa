"""The SavedModel of a handle as a local folder: from a mirror, from the cache of a library, or downloaded."""

import logging

from trainer.encoders import hub_cache, kaggle_cache, mirrors
from trainer.encoders.handles import KAGGLE, Handle

_LOG = logging.getLogger(__name__)


def fetch_model(handle: Handle, given: str, flag: str, mirror: str = "") -> str:
    """The folder of a handle's SavedModel; what is in no mirror and no cache is downloaded.

    `given` is the handle as `flag` has it: what tensorflow-hub has cached under another spelling is found too.
    `mirror` is the folder of a mirror, or "".

    Raises UserError if the mirror's copy is damaged, the cache's incomplete, or the download fails.
    """
    if mirror and (folder := mirrors.find_model(handle, mirror)):
        return folder
    if mirror:
        _LOG.info("note: the mirror %s has no %s", mirror, handle.mirror_folder)
    if given != handle.url and (folder := hub_cache.find_cached(given, flag)):
        return folder
    if handle.site == KAGGLE:
        # tensorflow-hub downloads Kaggle's models too, without credentials.
        return hub_cache.find_cached(handle.url, flag) or kaggle_cache.download(handle, flag)
    return hub_cache.download(handle.url, flag)
