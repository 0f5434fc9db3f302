"""The host side of the inferlet interfaces: one file a WIT interface, one table a file.

Owns what a guest's calls mean; a guest that dies closes its resources here synchronously. Every
table maps a WIT name to a function whose first argument is the `InstanceHost`.
It must never import an actor: models, queues, outlet and inbox are handles that are handed in.
"""
