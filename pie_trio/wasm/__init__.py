"""The airlock: everything between Trio and a WebAssembly guest, and nothing else.

A guest is a fiber inside one Trio task (`guest`), its imports are Python functions (`linker`) whose
values are converted by codecs that were compiled once (`codec`). When the task dies, the fiber,
its memory and every resource it held are gone before anybody can see the death. No module here
knows what a model, a queue or a page is.
"""
