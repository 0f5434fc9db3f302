"""The Trio client: everything that a server offers, as typed calls inside one `async with`.

It owns one connection. When the connection dies, every pending call and every reader of output
raises `ServerGone` at once; what was launched runs on at the server, detached.
"""

from pie_trio.client.client import Client, RunningInstance, open_client, open_client_on
from pie_trio.client.errors import RemoteError, RequestRefused, ServerGone
from pie_trio.client.remote import RemoteInstance

__all__ = [
    "Client",
    "RemoteError",
    "RemoteInstance",
    "RequestRefused",
    "RunningInstance",
    "ServerGone",
    "open_client",
    "open_client_on",
]
