"""Answers of a SavedModel from a program in C, which knows nothing of Python."""

import os
import shutil
import subprocess

import numpy as np
import processes
import tensorflow as tf

from keras_rnnx.serving import graph

IS_MISSING = shutil.which("gcc") is None


def build(folder):
    program = folder / "run_sm"
    if not program.exists():
        lib, include = tf.sysconfig.get_lib(), tf.sysconfig.get_include()
        libraries = ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
        command = ["gcc", "-O1", "-Wall", "-Werror", f"-I{include}", processes.HERE / "run_sm.c"]
        command += ["-o", program, f"-L{lib}", *libraries, f"-Wl,-rpath,{lib}"]
        subprocess.run(list(map(str, command)), check=True)
    return program


def answers(version, signature, request, folder):
    """`{output: flat array}`; the program and its files are left in `folder`."""
    asked = graph.read(version).signature_def[signature]
    arguments = [build(folder), version, len(request)]
    for name, value in request.items():
        (folder / name).write_bytes(_bytes(value))
        info = asked.inputs[name]
        arguments += [info.name, info.dtype, value.ndim, *value.shape, folder / name]
    arguments.append(len(asked.outputs))
    for name, info in asked.outputs.items():
        arguments += [info.name, folder / f"out_{name}"]
    environment = {**os.environ, "SERVING_XLA_DEFAULT": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(list(map(str, arguments)), check=True, env=environment)
    return {
        name: _array((folder / f"out_{name}").read_bytes(), tf.as_dtype(info.dtype))
        for name, info in asked.outputs.items()
    }


def _bytes(value):
    if value.dtype != object:
        return value.tobytes()
    return b"".join(len(s).to_bytes(4, "little") + s for s in value.ravel())


def _array(data, dtype):
    if dtype != tf.string:
        return np.frombuffer(data, dtype.as_numpy_dtype)
    texts = []
    while data:
        length = int.from_bytes(data[:4], "little")
        texts.append(data[4 : 4 + length])
        data = data[4 + length :]
    return np.array(texts, object)
