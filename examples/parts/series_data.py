"""The series of MNIST-1D, and how well they are told apart without a recurrent net or attention.

Data and baselines of examples/rnn_or_transformer.py; examples/regularizers.py has the same data.
"""

import keras
import mnist1d.data
import numpy as np
from scipy.spatial.distance import cdist


def load(quick):
    """Series `[N, 40, 1]` and their classes: for training and for the test."""
    data = mnist1d.data.make_dataset(mnist1d.data.get_dataset_args())
    part = slice(500) if quick else slice(None)
    pairs = (("x", "y"), ("x_test", "y_test"))
    return [(data[x][part, :, None].astype("float32"), data[y][part]) for x, y in pairs]


def split(rows, size):
    """So many examples: seven eighths for training, the rest for validation."""
    x, y = rows
    first = size - size // 8
    return (x[:first], y[:first]), (x[first:size], y[first:size])


def logistic():
    classify = keras.layers.Dense(10, activation="softmax")
    return keras.Sequential([keras.Input((40, 1)), keras.layers.Flatten(), classify])


def neighbours(train_set, held_out, test_set):
    """Accuracy of a vote of the nearest training examples, as many as suit the held-out ones."""
    x, y = train_set

    def accuracy(count, asked, classes):
        nearest = np.argsort(cdist(asked[..., 0], x[..., 0]), axis=1)[:, :count]
        votes = np.eye(10)[y[nearest]].sum(axis=1)
        return np.mean(votes.argmax(axis=1) == classes)

    best = max((1, 3, 5, 9, 15), key=lambda count: accuracy(count, *held_out))
    return accuracy(best, *test_set)
