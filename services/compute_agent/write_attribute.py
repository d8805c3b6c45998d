"""Write one attribute of sysfs and exit with 0 or the kernel's errno: a program for :mod:`.kernel`.

It runs as a separate process, because a guest can block such a write in the kernel without limit.
"""

import os
import sys

if __name__ == "__main__":
    try:
        descriptor = os.open(sys.argv[1], os.O_WRONLY)
        os.write(descriptor, sys.argv[2].encode())
    except OSError as error:
        sys.exit(error.errno)
