"""One file a peer: each runs inside the environment of that engine, as a process of its own."""
