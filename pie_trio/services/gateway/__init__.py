"""The front door: clients of the official protocol over WebSocket, on streams that are handed in.

It owns connections, never instances: a connection that dies detaches from its instances and they
run on. No client can make another one wait, and none can make the engine fail.
"""

from pie_trio.services.gateway.engine_port import EngineLike, InstanceLike
from pie_trio.services.gateway.server import open_listeners, serve_gateway

__all__ = ["EngineLike", "InstanceLike", "open_listeners", "serve_gateway"]
