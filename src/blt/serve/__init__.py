"""An OpenAI-compatible server of bytes: ``blt serve FOLDER``."""
