"""Answers warm-up requests as TensorFlow Serving does. Run as a script in a process of its own:

    python -I session.py VERSION_DIR REQUESTS.pickle ANSWERS.pickle

The session loader, XLA switched off as the server has it, and nothing of Keras or keras_rnnx. A
request is `(signature, {input: array})`, its answer `{output: array}` or the text of the error.
"""

import ctypes
import os
import pickle
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def main(version, requests, answers):
    # What is not on a server cannot be imported.
    sys.modules["keras"] = sys.modules["keras_rnnx"] = None
    import tensorflow as tf

    # TensorFlow Serving does this at its start unless a flag says otherwise.
    library = os.path.join(tf.sysconfig.get_lib(), "libtensorflow_cc.so.2")
    ctypes.CDLL(library)._ZN10tensorflow21DisableXlaCompilationEv()
    with open(requests, "rb") as file:
        requests = pickle.load(file)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], version)
        found = [_answer(tf, session, loaded, *one) for one in requests]
    with open(answers, "wb") as file:
        pickle.dump(found, file)


def _answer(tf, session, loaded, name, inputs):
    signature = loaded.signature_def.get(name)
    if signature is None:
        there = sorted(one for one in loaded.signature_def if not one.startswith("__"))
        return f"there is no signature {name!r}, only {there}."
    if set(inputs) != set(signature.inputs):
        return f"{name!r} takes the inputs {sorted(signature.inputs)}, got {sorted(inputs)}."
    try:
        feeds = {signature.inputs[name].name: value for name, value in inputs.items()}
        fetches = {name: info.name for name, info in signature.outputs.items()}
        return session.run(fetches, feeds)
    except (ValueError, tf.errors.OpError) as error:
        # In one line: what went wrong often stands below where it went wrong.
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


if __name__ == "__main__":
    main(*sys.argv[1:])
