"""Builds guest programs: C headers from the WIT, C components, Python components, the interpreter.

Everything here runs once, before any guest does, and leaves nothing behind when it dies: output
appears by one atomic rename or not at all. No build step may depend on where it runs.
"""
