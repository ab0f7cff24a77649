"""Medians, spread and ratios of interleaved rounds.

A peer's times are a list of rounds, each a list of seconds per call.
"""

import math
import statistics

import numpy as np


def spread(values):
    """(first quartile, median, third quartile)"""
    return tuple(float(q) for q in np.percentile(values, [25, 50, 75]))


def times(rounds):
    return spread([seconds for calls in rounds for seconds in calls])


def ratio(peer, ours):
    """How many times as long the peer takes, as a spread over rounds.

    Divided round by round: what slows the machine for a while slows both sides of a round alike.
    """
    medians = [map(statistics.median, rounds) for rounds in (peer, ours)]
    return spread([one / other for one, other in zip(*medians, strict=True)])


def geometric_mean(values):
    return math.exp(statistics.fmean(math.log(value) for value in values))
