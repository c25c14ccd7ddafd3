"""Tokens, for the baselines: byte-pair encoding of any bytes; byte models need none of it."""
