"""Small worlds for tests: real implementations of our handles that need no process."""
