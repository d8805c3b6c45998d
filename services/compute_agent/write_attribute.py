"""Write one attribute of sysfs and exit with 0 or the kernel's errno: a program for :mod:`.kernel`.

A process of its own, because such a write can wait in the kernel for as long as a guest likes.
"""

import os
import sys

if __name__ == "__main__":
    try:
        descriptor = os.open(sys.argv[1], os.O_WRONLY)
        os.write(descriptor, sys.argv[2].encode())
    except OSError as error:
        sys.exit(error.errno)
