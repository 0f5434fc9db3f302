"""One file an engine: its server, run inside that engine's environment, as a process of its own."""
