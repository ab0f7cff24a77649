"""What is inside a layer or model, by public means only."""

import keras


def children(layer):
    """The layers that a layer holds itself."""
    # A model's own list comes first, for its order. Attributes hold the rest: what a wrapper
    # wraps, and what a layer of the user keeps under whatever name.
    for value in [getattr(layer, "layers", []), *vars(layer).values()]:
        value = list(value.values()) if isinstance(value, dict) else value
        values = value if isinstance(value, (list, tuple)) else [value]
        yield from (v for v in values if isinstance(v, keras.layers.Layer) and v is not layer)


def everything(layer):
    """The layer and all below it, each once."""
    seen, waiting = {}, [layer]
    while waiting:
        one = waiting.pop(0)
        if id(one) not in seen:
            seen[id(one)] = one
            waiting.extend(children(one))
    return list(seen.values())
