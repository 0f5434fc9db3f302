"""pie-trio: a server of programs that control a language model, built from actors on Trio."""

__version__ = "0.1.0"
