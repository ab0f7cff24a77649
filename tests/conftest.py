"""What every test starts from: TensorFlow's backend, quiet logs, the same seeds."""

import os
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import pytest
import tensorflow as tf


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: a selection that runs in under three minutes")
    config.addinivalue_line("markers", "slow: left out by the default command")
    config.addinivalue_line("markers", "thin(n): one case in n is not slow")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of a test marked `thin(n)` one case in n stays in the first selection, drawn by its name.

    The others are slow tests: tables that are run whole take longer than a first look may.
    """
    tables = {}
    for item in items:
        mark = item.get_closest_marker("thin")
        if mark and not item.get_closest_marker("slow"):
            tables.setdefault((item.path, item.originalname, mark.args[0]), []).append(item)
    for (*_, n), cases in tables.items():
        drawn = sorted(cases, key=lambda item: zlib.crc32(item.name.encode()))
        for item in drawn[-(-len(cases) // n) :]:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def same_start():
    """Each test starts from the same seeds and leaves no global setting behind."""
    keras.utils.set_random_seed(20)
    yield
    tf.config.run_functions_eagerly(False)
    keras.config.set_dtype_policy("float32")
