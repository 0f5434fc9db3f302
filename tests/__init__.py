"""The tests: one file a subject; every name is a sentence that can be false."""
