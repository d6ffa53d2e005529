from array import array

import numpy as np
import numpy.typing as npt

_Int32 = npt.NDArray[np.int32] | array[int] | bytes

def convolve(
    pixels: object,
    width: int,
    height: int,
    x_start: _Int32,
    x_coefs: _Int32,
    y_start: _Int32,
    y_coefs: _Int32,
    /,
) -> bytes: ...
