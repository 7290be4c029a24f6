"""How published files are read and written: config keys, rotary dialects, tensor names. The families build on it."""
