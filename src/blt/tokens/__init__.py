"""Tokens, for the baselines, belong here: byte-pair encoding of any bytes; nothing that byte models
need, and no model.
"""
