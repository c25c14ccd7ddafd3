"""Bytes as text: pieces, groups and samples of it, and safe printing; knows nothing of models."""
