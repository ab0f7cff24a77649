"""`python -m keras_rnnx.serving.check DIRECTORY`: see `keras_rnnx.serving.check`, the function."""

import sys

from keras_rnnx.serving.checking import main

if __name__ == "__main__":
    sys.exit(main())
