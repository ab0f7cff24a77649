"""What the annotations of this package speak of.

TensorFlow and Keras have no types that a checker reads, so these say what is meant, and bind only
where they are made of Python's own types.
"""

import os
from collections.abc import Callable
from typing import Any
from typing import TypeAlias

Tensor: TypeAlias = Any  # of TensorFlow or symbolic of Keras; as an argument, arrays too
Array: TypeAlias = Any  # of NumPy; as an argument, whatever `np.asarray` takes
States: TypeAlias = Any  # a tensor, or lists of them as the cell has its states
Shape: TypeAlias = Any  # a tuple of sizes, None where it is not known
Dtype: TypeAlias = Any  # its name, or one of TensorFlow or Keras
Config: TypeAlias = dict[str, Any]  # of a serialized object

Activation: TypeAlias = str | Config | Callable[..., Any] | None
Initializer: TypeAlias = str | Config | Callable[..., Any] | None
Regularizer: TypeAlias = str | Config | Callable[..., Any] | None
Constraint: TypeAlias = str | Config | Callable[..., Any] | None
PathLike: TypeAlias = str | os.PathLike[str]
