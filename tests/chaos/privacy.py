"""A network and mounts of this program's own, which nobody else sees and which go with its last process."""

import os
import shutil
import subprocess
import sys

_ENTERED = "PORTCLAIM_CHAOS_PRIVATE"


def enter() -> None:
    """Begin the program again in namespaces of its own, where it may; once."""
    if _ENTERED not in os.environ:
        private = _possible()
        os.environ[_ENTERED] = " ".join(private)
        if private:
            unshare = shutil.which("unshare") or ""
            os.execv(unshare, [unshare, *private, sys.executable, *sys.orig_argv[1:]])
    if has_network():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def has_network() -> bool:
    """Is the network our own?"""
    return "--net" in os.environ.get(_ENTERED, "")


def has_mounts() -> bool:
    """May we mount what nobody else sees?"""
    return "--mount" in os.environ.get(_ENTERED, "")


def why_not() -> str:
    """Why something is not there that :func:`enter` would have given us."""
    return "it needs root with CAP_SYS_ADMIN, unshare (util-linux) and, for networks, ip (iproute2)"


def _possible() -> list[str]:
    wanted = ["--mount", *(["--net"] if shutil.which("ip") and shutil.which("nsenter") else [])]
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return []
    trial = ["unshare", *wanted, "mount", "-t", "tmpfs", "none", "/mnt"]
    tried = subprocess.run(trial, check=False, capture_output=True)
    return wanted if tried.returncode == 0 else []
