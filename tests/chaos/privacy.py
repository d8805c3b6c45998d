"""A private network and private mounts for this program. They vanish with its last process."""

import os
import shutil
import subprocess
import sys

_ENTERED = "PORTCLAIM_CHAOS_PRIVATE"


def enter() -> None:
    """Restart the program once in its own namespaces, if it has the permission."""
    if _ENTERED not in os.environ:
        private = _possible()
        os.environ[_ENTERED] = " ".join(private)
        if private:
            unshare = shutil.which("unshare") or ""
            os.execv(unshare, [unshare, *private, sys.executable, *sys.orig_argv[1:]])
    if has_network():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def has_network() -> bool:
    """Does the program have a private network?"""
    return "--net" in os.environ.get(_ENTERED, "")


def has_mounts() -> bool:
    """Does the program have private mounts?"""
    return "--mount" in os.environ.get(_ENTERED, "")


def why_not() -> str:
    """Why the program lacks what :func:`enter` would have given it."""
    return "it needs root with CAP_SYS_ADMIN, unshare (util-linux) and, for networks, ip (iproute2)"


def _possible() -> list[str]:
    wanted = ["--mount", *(["--net"] if shutil.which("ip") and shutil.which("nsenter") else [])]
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return []
    trial = ["unshare", *wanted, "mount", "-t", "tmpfs", "none", "/mnt"]
    tried = subprocess.run(trial, check=False, capture_output=True)
    return wanted if tried.returncode == 0 else []
