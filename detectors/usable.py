"""Which rows of a column hold a value: the rule of `detectors.series_kernels` for whole columns."""

import numpy as np
from numpy.typing import NDArray

from detectors.series_kernels import VALUE_MOST


def usable(value: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where there is a value; NaN, infinities and what is beyond all measure are missing.

    >>> usable(np.array([1.0, np.nan, -1e300])).tolist()
    [True, False, False]
    """
    found: NDArray[np.bool_] = np.abs(value) <= VALUE_MOST
    return found
