#!/usr/bin/env python3
"""One command line for the whole system; see ``python3 manage_all.py --help``.

Runs on the standard library alone until it has made its virtual environment.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - said in one line instead of as a SyntaxError
    sys.exit("manage_all: Python 3.11 or newer is needed, this is " + sys.version.split()[0])

from deploy.stack.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
