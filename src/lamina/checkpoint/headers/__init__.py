"""What stands at the beginning of a weights file: its metadata and its tensors' names, shapes, formats and places.

Nothing here imports torch or reads a tensor that is not asked for. A file on this machine and one behind a server
are read by the same code, only as far as the header goes; loading builds on it too.
"""
