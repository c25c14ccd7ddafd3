"""Messages become ids here, by a model folder's template, and conversations are kept: no model, no
terminal and no HTTP.
"""

from blt.chat.messages import Message, check_messages
from blt.chat.template import ChatTemplate, Segment

__all__ = ["ChatTemplate", "Message", "Segment", "check_messages"]
