"""The OpenAI-compatible server of bytes and its page belong here; how text is written does not."""
