"""Messages become ids here; no model, no terminal and no HTTP."""

from blt.chat.template import ChatTemplate, Segment

__all__ = ["ChatTemplate", "Segment"]
