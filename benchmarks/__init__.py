"""Speed and memory of this library, measured beside others': ``python -m benchmarks NAME``."""
