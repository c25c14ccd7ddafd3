"""Files of every kind, read strictly and written whole or not at all; knows nothing of models."""
