"""The token baseline's own parts: its tokenizer, and writing with it; byte models need neither."""
