"""Converts a SavedModel to LiteRT. Run as a script in a process of its own, which may crash alone:

    python -I convert.py SAVED_MODEL OUT.tflite HOW [CALIBRATION.npz]

HOW: "float32", "dynamic" (weights in int8) or "int8" (all in int8, by what the calibration shows).
"""

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def main(saved, out, how, calibration=None):
    import numpy as np
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(saved, signature_keys=["serving_default"])
    if how != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if how == "int8":
        rows = np.load(calibration)
        count = len(rows[rows.files[0]])
        converter.representative_dataset = lambda: (
            {name: rows[name][k] for name in rows.files} for k in range(count)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    with open(out, "wb") as file:
        file.write(converter.convert())


if __name__ == "__main__":
    main(*sys.argv[1:])
