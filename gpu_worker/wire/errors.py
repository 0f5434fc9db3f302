"""The one exception of the wire: whatever a broken peer sends, and whatever cannot be sent.

Pure. It must never carry more than a text: who catches it cannot trust the sender.
"""


class WireError(Exception):
    """The frames are not a message of this protocol, or the message cannot be put into frames."""
