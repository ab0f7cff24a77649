"""`python -m benchmarks.fit`: an epoch of `model.fit`; nothing but the import of the layer differs.

The same as `python -m benchmarks --filter ^fit/`, whose other options it takes.
"""

import sys

from benchmarks.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["--filter", "^fit/", *sys.argv[1:]]))
