"""Prefix beam search: the most probable labels of a sequence, over all paths that spell them.

Axes: B batch, T time, C classes with the blank, K prefixes of a sample, S places of a prefix.
"""

from typing import Any
from typing import NamedTuple

import tensorflow as tf

from keras_rnnx.heads.ctc_lattice import NEVER


class _Beams(NamedTuple):
    """K different prefixes of each sample, the best first."""

    ids: Any  # [B, K, S], -1 after the prefix
    lengths: Any  # [B, K]
    blank: Any  # [B, K]: log p of the paths that spell the prefix and end in a blank
    label: Any  # [B, K]: of those that end in its last label
    language: Any  # [B, K]: what the language model has added
    common: Any  # [B, K, K]: how long the common beginning of two prefixes is

    @property
    def scores(self):
        return _add(self.blank, self.label) + self.language


def prefix_beam_search(log_p, lengths, blank, beam_width, language_model=None):
    """`(ids [B, K, T], lengths [B, K], scores [B, K])`, the best first.

    Args:
        log_p: `[T, B, C]` float32, the real steps of each row first.
        lengths: `[B]`, how many there are.
        blank: its id.
        beam_width: K.
        language_model: see `CTCDecoder`.
    """
    T, B, C = tf.shape(log_p)[0], tf.shape(log_p)[1], log_p.shape[2]
    K = beam_width
    # After its end a row goes on with certain blanks, which change no score and no prefix.
    silent = tf.where(tf.range(C) == blank, 0.0, NEVER)
    within = tf.transpose(tf.sequence_mask(lengths, T))
    log_p = tf.where(within[..., None], tf.maximum(log_p, NEVER), silent)
    start = _Beams(
        ids=tf.fill([B, K, T], -1),
        lengths=tf.zeros([B, K], tf.int32),
        blank=tf.tile(tf.where(tf.range(K) == 0, 0.0, NEVER)[None], [B, 1]),
        label=tf.fill([B, K], NEVER),
        language=tf.zeros([B, K]),
        common=tf.zeros([B, K, K], tf.int32),
    )

    def body(t, beams):
        return t + 1, _go_on(beams, tf.gather(log_p, t), blank, language_model)

    _, beams = tf.while_loop(
        lambda t, _: t < tf.reduce_max(lengths),
        body,
        (0, start),
        shape_invariants=(
            tf.TensorShape([]),
            _Beams(
                tf.TensorShape([None, K, None]),
                *4 * [tf.TensorShape([None, K])],
                tf.TensorShape([None, K, K]),
            ),
        ),
    )
    exists = beams.scores > NEVER / 2
    ids = tf.where(exists[..., None], beams.ids, -1)
    scores = tf.where(exists, beams.scores, -float("inf"))
    return ids, tf.where(exists, beams.lengths, 0), scores


def _go_on(beams, log_p, blank, language_model):
    """One step: each prefix stays or gets a label more; the best of all these are kept.

    log_p: `[B, C]`.
    """
    K, C = beams.label.shape[1], log_p.shape[1]
    last = _last(beams)  # [B, K], -1 of an empty prefix
    total = _add(beams.blank, beams.label)
    stay_blank = total + log_p[:, blank, None]
    stay_label = beams.label + tf.gather(log_p, tf.maximum(last, 0), axis=1, batch_dims=1)
    # A label again is another one only after a blank.
    again = last[..., None] == tf.range(C)
    more = tf.where(again, beams.blank[..., None], total[..., None]) + log_p[:, None]
    more = tf.where(tf.range(C) == blank, NEVER, more)
    more, stay_label = _merged(beams, last, more, stay_label)
    added = tf.zeros_like(more) + beams.language[..., None]
    if language_model is not None:
        added += _language_scores(language_model, beams, C)

    stay = _add(stay_blank, stay_label) + beams.language
    candidates = tf.concat([stay[..., None], more + added], axis=-1)
    _, index = tf.math.top_k(tf.reshape(candidates, [-1, K * (C + 1)]), K)
    parents, labels = index // (C + 1), index % (C + 1) - 1  # -1: the prefix stays
    stays = labels < 0
    take = lambda a: tf.gather(a, parents, axis=1, batch_dims=1)
    grown = lambda a: tf.gather(take(a), tf.maximum(labels, 0), axis=2, batch_dims=2)
    lengths = take(beams.lengths)
    places = tf.range(tf.shape(beams.ids)[2])
    at_end = (places == lengths[..., None]) & ~stays[..., None]
    new = _Beams(
        ids=tf.where(at_end, labels[..., None], take(beams.ids)),
        lengths=lengths + tf.cast(~stays, tf.int32),
        blank=tf.where(stays, take(stay_blank), NEVER),
        label=tf.where(stays, take(stay_label), grown(more)),
        language=tf.where(stays, take(beams.language), grown(added)),
        common=tf.gather(take(beams.common), parents, axis=2, batch_dims=1),
    )
    return new._replace(common=_common(new))


def _merged(beams, last, more, stay_label):
    """The paths by which a prefix becomes another one that is kept count for that one.

    Exact: of two different prefixes the common beginnings are known, not hashes.
    """
    alive = beams.scores > NEVER / 2
    shorter, longer = beams.lengths[..., None], beams.lengths[:, None]
    becomes = (beams.common == shorter) & (longer == shorter + 1)  # [B, K, K]: first, second
    becomes &= alive[..., None] & alive[:, None]
    label = tf.maximum(last, 0)
    coming = tf.gather(more, label, axis=2, batch_dims=1)  # [B, K, K]
    coming = tf.reduce_max(tf.where(becomes, coming, NEVER), axis=1)
    gone = tf.argmax(becomes, axis=1, output_type=tf.int32)
    rows = tf.broadcast_to(tf.range(tf.shape(last)[0])[:, None], tf.shape(last))
    lowered = tf.where(tf.reduce_any(becomes, axis=1), NEVER, -NEVER)
    where = tf.stack([rows, gone, label], axis=-1)
    return tf.tensor_scatter_nd_min(more, where, lowered), _add(stay_label, coming)


def _common(beams):
    """Common beginnings, from those of the parents: a place longer where the next labels agree."""
    so_far = beams.common
    place = tf.minimum(so_far, tf.shape(beams.ids)[2] - 1)
    following = tf.gather(beams.ids, place, axis=2, batch_dims=2)
    equal = following == tf.transpose(following, [0, 2, 1])
    room = so_far < tf.minimum(beams.lengths[..., None], beams.lengths[:, None])
    return so_far + tf.cast(equal & room, tf.int32)


def _language_scores(language_model, beams, classes):
    """`[B, K, C]` scores of the labels after each prefix."""
    shape = tf.shape(beams.ids)
    prefixes = tf.reshape(beams.ids, [-1, shape[2]])
    scores = tf.convert_to_tensor(language_model(prefixes, tf.reshape(beams.lengths, [-1])))
    if not scores.shape.is_compatible_with([None, classes]):
        raise ValueError(
            f"The language model gave scores of shape {tuple(scores.shape)}, expected (prefixes, "
            f"classes) with {classes} classes, the blank among them."
        )
    scores = tf.maximum(tf.cast(scores, tf.float32), NEVER)
    return tf.reshape(scores, [shape[0], shape[1], classes])


def _last(beams):
    """The last label of each prefix, -1 where there is none."""
    place = tf.maximum(beams.lengths - 1, 0)[..., None]
    return tf.gather(beams.ids, place, axis=2, batch_dims=2)[..., 0]


def _add(a, b):
    """log(exp(a) + exp(b))"""
    return tf.maximum(a, b) + tf.math.log1p(tf.exp(-tf.abs(a - b)))
