"""Compiling loops with XLA: does it work here, may it be used here, and the cache.

Compiled functions live in a module cache and never on a layer: whatever `tf.function` a layer
holds, `tf.saved_model.save` writes into the export, and a server refuses must-compile functions.
"""

import contextlib
import contextvars
import functools
import warnings
from collections.abc import Iterator

import tensorflow as tf

_portable = contextvars.ContextVar("keras_rnnx_portable", default=False)
_any_device = contextvars.ContextVar("keras_rnnx_any_device", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Context in which every layer runs the plain loop, whatever its mode and options.

    A graph traced inside holds stock ops only and no must-compile function, so that it can be
    exported: also where `training=True` is baked into a functional model, which would otherwise
    trace the compiled loop.

    Example:

    >>> import keras, keras_rnnx, tensorflow as tf
    >>> inputs = keras.Input((None, 3))
    >>> layer = keras_rnnx.LSTM(4, dropout=0.5)
    >>> model = keras.Model(inputs, layer(inputs, training=True))  # Monte-Carlo dropout
    >>> with keras_rnnx.portable():
    ...     layer.plan(training=True).backend
    'plain'
    """
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable():
    return _portable.get()


@contextlib.contextmanager
def for_any_device():
    """`portable()`, with what cuDNN knows as a pair of functions, of which TensorFlow takes the one
    for the device that it finds (`engine.devices`). Only a session can choose, so this is for
    SavedModels, not for what is converted further."""
    token = _any_device.set(True)
    try:
        with portable():
            yield
    finally:
        _any_device.reset(token)


def is_for_any_device():
    return _any_device.get()


def may_choose():
    """Whether a graph may hold two loops and take one by sizes that are not known yet.

    What converts a portable graph further (ONNX) stumbles over loops in a choice.
    """
    return is_for_any_device() or not is_portable()


def is_enclosed():
    """Whether the caller compiles what is being traced."""
    return tf.__internal__.get_enclosing_xla_context() is not None


def device_type():
    return "GPU" if tf.config.list_physical_devices("GPU") else "CPU"


@functools.cache
def failure(device):
    """Why XLA does not work on this type of device, or None: one tiny probe per process."""
    try:
        with tf.init_scope(), tf.device(f"/{device}:0"):
            probe = tf.function(lambda x: 2 * x, jit_compile=True, autograph=False)
            probe(tf.constant(1.0)).numpy()
    except Exception as error:  # whatever its kind: the plain loop serves, and says why
        reason = f"XLA does not work on this {device}: {str(error).splitlines()[0]}"
        warnings.warn(f"keras_rnnx runs its plain loop, which is slower. {reason}", stacklevel=2)
        return reason
    return None


@functools.cache
def function(recurrence, method, jit_compile):
    """A loop of `recurrence` as a graph function, shared by all equal recurrences.

    The cache holds every function for good: graphs that call one refer to it by name only.
    """
    # A partial is an object of its own: TensorFlow counts retraces by code, which all loops share,
    # and would warn of every new layer.
    loop = functools.partial(getattr(recurrence, method))
    loop.__name__ = method
    return tf.function(loop, jit_compile=jit_compile or None, autograph=False)
