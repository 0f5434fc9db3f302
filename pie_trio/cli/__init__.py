"""The command line: synchronous, one file a verb group; each verb calls `trio.run` once.

It owns the terminal and the exit code. When somebody dies it says who and why on stderr and ends
with the documented code. It never reaches into actors: an engine or a client is all it holds.
"""
