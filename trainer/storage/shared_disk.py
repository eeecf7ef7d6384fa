"""Disks that several machines may use at once: NFS, Filestore, a cluster's file system, a volume of a container."""

import contextlib
import os
import pathlib
import re
import uuid

# Of these, everything that is written goes through this machine's kernel. Any other one may be written elsewhere too.
LOCAL_FILESYSTEMS = frozenset(
    "aufs bcachefs btrfs ext2 ext3 ext4 f2fs overlay ramfs reiserfs tmpfs vfat xfs zfs".split()  # noqa: SIM905
)
MOUNTS = "/proc/self/mountinfo"  # Its format: https://docs.kernel.org/filesystems/proc.html#proc-pid-mountinfo
BOOT_ID = "/proc/sys/kernel/random/boot_id"  # Another one for each start of a machine; one for all its containers.


def is_shared(folder: str) -> bool:
    """Whether other machines may write to this existing folder. True where that cannot be found out."""
    path, best, filesystem = os.path.realpath(folder), "", ""
    with contextlib.suppress(OSError), open(MOUNTS, encoding="utf-8", errors="replace") as file:
        for line in file:
            mount, _, rest = line.partition(" - ")
            point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), mount.split()[4])
            if len(point) >= len(best) and (path == point or path.startswith(f"{point.rstrip('/')}/")):
                best, filesystem = point, rest.split()[0]  # Of two at one place, the later one covers the other.
    return filesystem not in LOCAL_FILESYSTEMS


def mount_identity(folder: str) -> str:
    """What is the same for two processes only if one kernel sees both their locks on files of this folder.

    A host's name does not do: a pod that is started again on another machine has the same one. Nor does the machine
    alone: some drivers mount a volume for each container, with locks of its own.
    """
    try:
        boot = pathlib.Path(BOOT_ID).read_text(encoding="ascii").strip()
    except OSError:
        boot = uuid.uuid4().hex
    return f"{boot}/{os.stat(folder).st_dev}"


def refresh(folder: str) -> None:
    """Make NFS ask its server again what is in the folder and in those above it. It may be missing.

    A client remembers for up to a minute that a name was missing (acdirmax of nfs(5)), but asks again when the folder
    that would have it is opened.
    """
    path = pathlib.Path(os.path.abspath(folder))
    for each in [*reversed(path.parents), path]:
        with contextlib.suppress(OSError):
            os.close(os.open(each, os.O_RDONLY | os.O_DIRECTORY))
