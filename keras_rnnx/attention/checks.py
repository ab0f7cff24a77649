"""What an AttentionCell may be made of and called with: one clear sentence for what it may not."""

from keras_rnnx.attention.base import Attention
from keras_rnnx.cells import Around
from keras_rnnx.layers import Cell

NOISE = (
    "dropout",
    "recurrent_dropout",
    "dropout_mode",
    "recurrent_dropout_mode",
    "zoneout",
    "weight_dropout",
    "seed",
)


def parts(cell, attentions, kind):
    """A cell of this package, but not one with attention (`kind`), and attentions."""
    if not isinstance(cell, Cell) or isinstance(cell, kind):
        raise TypeError(
            f"AttentionCell got the cell {cell!r}, expected a cell of keras_rnnx, such as "
            "keras_rnnx.GRUCell(64); a spec of your own becomes one by keras_rnnx.CustomCell."
        )
    for attention in attentions:
        if not isinstance(attention, Attention):
            raise TypeError(
                f"AttentionCell got the attention {attention!r}, expected one of "
                "keras_rnnx.attention, such as BahdanauAttention(64), or a list of them."
            )
    if not attentions:
        raise ValueError("AttentionCell got no attention, expected one or more.")


def options(query, input_feeding, output_mode, attention_size):
    for name, value, choices in (
        ("query", query, ("output", "state")),
        ("output_mode", output_mode, (None, "attention", "cell", "both")),
    ):
        if value not in choices:
            known = ", ".join(map(repr, choices))
            raise ValueError(f"{name} is {value!r}, expected one of {known}.")
    if input_feeding and query != "output":
        raise ValueError(
            'input_feeding is True and query is "state", where the cell gets the context of the '
            "same step: leave input_feeding out."
        )
    whole = isinstance(attention_size, int) and not isinstance(attention_size, bool)
    if attention_size is not None and (not whole or attention_size < 1):
        raise ValueError(
            f"attention_size is {attention_size!r}, expected a positive integer, or None for the "
            "contexts themselves."
        )


def no_noise(given):
    noise = sorted(set(NOISE) & set(given))
    if noise:
        raise ValueError(
            f"AttentionCell got {', '.join(noise)}, which belong to the cell inside: "
            f"AttentionCell(GRUCell(64, {noise[0]}=...), ...)."
        )


def may_be_fed(cell):
    """Refuse a cell whose input goes through more than one product, to which another adds up."""
    spec = cell.spec
    while isinstance(spec, Around):
        spec = spec.spec
    if not spec.affine_input:
        raise ValueError(
            f"{type(cell).__name__} cannot be fed with an attention: it does more with its "
            'input than one product. Use input_feeding=False with query="output", or another '
            'cell (with normalize=("recurrent", "cell") for one with layer normalization).'
        )


def memory_sizes(cell, shapes, count):
    """The depth of the memory of each of `count` attentions, from the shapes of the constants."""
    if not isinstance(shapes, dict) or shapes.get("memory") is None:
        raise ValueError(
            f"{cell.name} was built without a memory, whose depth its weights depend on. Call "
            'the layer around it with constants={"memory": ...}, a tensor [B, S, M].'
        )
    memory = shapes["memory"]
    several = isinstance(memory[0], (list, tuple))
    sizes = [shape[-1] for shape in (memory if several else [memory])]
    if len(sizes) == 1:
        sizes *= count
    if len(sizes) != count or None in sizes:
        raise ValueError(
            f"{cell.name} got memories of depths {sizes}, expected {count} known one(s), for as "
            "many attentions."
        )
    return tuple(sizes)


def memories(cell, found, masks, count):
    if len(found) not in (1, count) or len(masks) != len(found):
        raise ValueError(
            f"{cell.name} got {len(found)} memories and {len(masks)} masks for {count} "
            f"attention(s), expected one memory, or {count}, each with its mask or None."
        )


def memory(cell, found, depth, batch):
    """A memory `[B, S, M]` of the depth that the cell was built for and the batch of the input."""
    shape = found.shape
    known = isinstance(batch, int) and shape.rank and shape[0] is not None
    if shape.rank != 3 or shape[-1] != depth or (known and shape[0] != batch):
        wanted = f"({batch if isinstance(batch, int) else 'batch'}, positions, {depth})"
        raise ValueError(
            f"{cell.name} got a memory of shape {tuple(shape)}, expected {wanted}: the batch of "
            "the input, and the depth that the cell was built for. In beam search repeat the "
            "memory for each beam."
        )


def memory_mask(cell, mask, found):
    if not mask.shape.is_compatible_with(found.shape[:2]):
        raise ValueError(
            f"{cell.name} got a memory_mask of shape {tuple(mask.shape)} for a memory of shape "
            f"{tuple(found.shape)}, expected its first two axes."
        )
