"""Speed and memory of this library, measured beside others': ``python -m benchmarks NAME``."""

import blt  # noqa: F401  # before PyTorch: its threads wait as under the command blt, on both sides
