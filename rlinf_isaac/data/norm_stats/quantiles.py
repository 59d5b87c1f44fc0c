"""Exact quantiles of a weighted stream in constant memory, by a radix search over the bits of the floats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_DIGIT_BITS = 16
_DIGITS = 1 << _DIGIT_BITS


class QuantileSearch:
    """For each q, the smallest value with at least q of the weight at or below it (inverted CDF).

    Floats are mapped to unsigned integers of the same order (`sort_keys`), so a quantile is a number of 2 (float32) or
    4 (float64) digits of 16 bits. Each pass over the stream counts the next digit of the values that share the digits
    found so far. Usage: `passes` times, `add` the whole stream and call `end_pass`; then `values` has the exact
    quantiles.

    Args:
        quantiles: each above 0 and at most 1.
        dtype: dtype of the values, float32 or float64.
    """

    def __init__(self, quantiles: Sequence[float], dtype: np.dtype) -> None:
        self.passes = dtype.itemsize * 8 // _DIGIT_BITS
        self._dtype = dtype
        self._quantiles = quantiles
        self._shift = (self.passes - 1) * _DIGIT_BITS
        self._prefixes = [0] * len(quantiles)  # digits found so far
        self._below = [0.0] * len(quantiles)  # weight of the values whose leading digits are smaller
        self._total = 0.0
        self._histograms = {0: np.zeros(_DIGITS)}  # by prefix

    def add(self, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Count a piece of the stream: (n,) values with (n,) integer-valued weights, or None if each counts once."""
        keys = sort_keys(values)
        first = self._shift == (self.passes - 1) * _DIGIT_BITS
        for prefix, histogram in self._histograms.items():
            counted, counted_weights = keys, weights
            if not first:
                inside = np.flatnonzero(keys >> (self._shift + _DIGIT_BITS) == prefix)
                counted, counted_weights = keys[inside], None if weights is None else weights[inside]
            digits = (counted >> self._shift) & (_DIGITS - 1)
            histogram += np.bincount(digits.astype(np.intp), counted_weights, minlength=_DIGITS)

    def end_pass(self) -> None:
        """Determine the next digit of each quantile from the histograms of this pass."""
        cumulative = {prefix: np.cumsum(histogram) for prefix, histogram in self._histograms.items()}
        self._total = self._total or float(cumulative[0][-1])
        for index, quantile in enumerate(self._quantiles):
            reached = self._below[index] + cumulative[self._prefixes[index]]
            digit = int(np.searchsorted(reached, quantile * self._total))
            if digit:
                self._below[index] = float(reached[digit - 1])
            self._prefixes[index] = self._prefixes[index] << _DIGIT_BITS | digit
        self._shift -= _DIGIT_BITS
        self._histograms = {prefix: np.zeros(_DIGITS) for prefix in self._prefixes}

    @property
    def values(self) -> list[float]:
        """The quantiles, once all passes are done."""
        return [float(value) for value in from_sort_keys(np.array(self._prefixes, np.uint64), self._dtype)]


def sort_keys(values: np.ndarray) -> np.ndarray:
    """Unsigned integers in the same order as the floats.

    The bits of IEEE 754 floats of one sign are ordered like the floats, or in reverse for negative ones. So all bits of
    negative floats are flipped, and only the sign bit of the others.
    """
    size = values.dtype.itemsize
    signed = np.ascontiguousarray(values).view(f"i{size}")
    flipped = (signed >> (size * 8 - 1)).view(f"u{size}")  # all bits of negatives, none of the others
    flipped |= flipped.dtype.type(1 << (size * 8 - 1))
    flipped ^= signed.view(f"u{size}")
    return flipped


def from_sort_keys(keys: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The inverse of `sort_keys`."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    sign = unsigned.type(1 << (dtype.itemsize * 8 - 1))
    keys = keys.astype(unsigned)
    return np.where(keys & sign, keys & ~sign, ~keys).view(dtype)
