"""What a model computes belongs here: shapes, layers, packed batches, and the contract of a
language model; no files, no training, no caches.
"""
