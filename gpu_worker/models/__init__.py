"""Decoders, written by hand, driven by a model's `config.json`."""
