"""Answer requests as TF Serving does: the session loader, XLA off, only TensorFlow at hand.

    python serve.py MODEL_DIR REQUESTS.npz ANSWERS.npz

Each array of REQUESTS is one request for the signature's one input; the answers hold the outputs
of request i as "i_name".
"""

import ctypes
import importlib.abc
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


class NothingOfOurs(importlib.abc.MetaPathFinder):
    """keras_rnnx may be installed beside TensorFlow; here it cannot be imported."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "keras_rnnx":
            raise ImportError(f"{name} is not on a server")


sys.meta_path.insert(0, NothingOfOurs())

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

# TF Serving does this at its start unless a flag says otherwise.
library = os.path.join(os.path.dirname(tf.__file__), "libtensorflow_cc.so.2")
ctypes.CDLL(library)._ZN10tensorflow21DisableXlaCompilationEv()


def main(model_dir, requests, answers):
    requests = np.load(requests)
    found = {}
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], model_dir)
        signature = loaded.signature_def["serving_default"]
        (feed,) = signature.inputs.values()
        fetches = {name: info.name for name, info in signature.outputs.items()}
        for i, request in enumerate(requests.values()):
            for name, value in session.run(fetches, {feed.name: request}).items():
                found[f"{i}_{name}"] = value
    np.savez(answers, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
