"""Bytes as text belong here: pieces, groups and samples of documents, and safe printing; no model,
and no files.
"""
