"""What lies beside the versions of a model: configurations of a server, and the commands for it."""

import json
import shlex

import keras
import numpy as np


def files(name, signatures, about):
    """`{file name: text}`."""
    return {
        "models.config": _models(name),
        "batching.config": BATCHING,
        "README.md": _readme(name, signatures, about),
    }


def _models(name):
    return f"""\
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
}}
"""


# Requests of different lengths go together only where they are padded; the `lengths` of each say
# what is real.
BATCHING = """\
max_batch_size { value: 32 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 1000 }
num_batch_threads { value: 4 }
pad_variable_length_inputs: true
"""


def _readme(name, signatures, about):
    parts = [f"# {name}\n", _server(name), MEANING]
    for key, signature in signatures.items():
        parts.append(_of_signature(name, key, signature, about["outputs"][key]))
    packages = ", ".join(f"{package} {number}" for package, number in about["packages"].items())
    parts.append(f"Written by {packages}.\n")
    return "\n".join(parts)


def _server(name):
    return f"""\
Serve it (REST on port 8501, gRPC on port 8500; requests are put together into batches):

```sh
docker run --rm -p 8500:8500 -p 8501:8501 \\
  -v "$PWD:/models/{name}" tensorflow/serving \\
  --model_config_file=/models/{name}/models.config \\
  --enable_batching --batching_parameters_file=/models/{name}/batching.config
```

run in this folder. A further version in it is taken up without a restart. Look at the newest one
before it is served:

```sh
python -m keras_rnnx.serving.check .
```
"""


MEANING = """\
In the shapes below the first `any` is the batch; in those of a sequence the second one is time.
`lengths` says how many steps of each row are real; what lies behind them is padding. Of a sequence
of outputs only these steps count.
"""


def _of_signature(name, key, signature, outputs):
    request = _short(signature)
    body = json.dumps({"signature_name": key, "inputs": {n: _plain(v) for n, v in request.items()}})
    row = lambda name, dtype, shape: f"| `{name}` | {dtype} | `{_shape(shape)}` |"
    taken = "\n".join(row(s.name, s.dtype.name, s.shape) for s in signature.specs)
    given = "\n".join(row(n, o["dtype"], o["shape"]) for n, o in outputs.items())
    arrays = ", ".join(f"{n!r}: {_literal(v)}" for n, v in request.items())
    return f"""\
## {key}

| input | dtype | shape |
|---|---|---|
{taken}

| output | dtype | shape |
|---|---|---|
{given}

```sh
curl http://localhost:8501/v1/models/{name}:predict -d {shlex.quote(body)}
```

```python
import numpy as np
from keras_rnnx.serving import Client

client = Client("localhost:8500", "{name}")  # gRPC; "http://localhost:8501" for REST
client.predict({{{arrays}}}, signature="{key}")
```
"""


def _short(signature):
    """The example, as short as one can read: one row, and of sequences two steps."""
    short = {}
    for spec in signature.specs:
        value = signature.example[spec.name][:1]
        if spec.name.endswith("lengths"):
            value = np.minimum(value, 2)
        sequence = spec.shape.rank > 1 and spec.shape[1] is None
        short[spec.name] = value[:, :2] if sequence else value
    return short


def _plain(value):
    """An array as JSON has it, short enough to read."""
    if value.dtype == object:
        text = lambda one: one.decode() if isinstance(one, bytes) else one
        return keras.tree.map_structure(text, value.tolist())
    return np.round(value.astype(float), 3).tolist() if value.dtype.kind == "f" else value.tolist()


def _literal(value):
    dtype = "object" if value.dtype == object else value.dtype.name
    return f"np.array({_plain(value)}, {dtype!r})"


def _shape(shape):
    if shape is None:
        return "any"
    return "[" + ", ".join("any" if n in (None, -1) else str(n) for n in shape) + "]"
