"""What every test starts from: TensorFlow's backend, quiet logs, the same seeds."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import pytest
import tensorflow as tf


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: a selection that runs in under three minutes")
    config.addinivalue_line("markers", "slow: left out by the default command")


@pytest.fixture(autouse=True)
def same_start():
    """Each test starts from the same seeds and leaves no global setting behind."""
    keras.utils.set_random_seed(20)
    yield
    tf.config.run_functions_eagerly(False)
    keras.config.set_dtype_policy("float32")
