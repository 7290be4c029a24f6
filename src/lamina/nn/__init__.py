"""How an architecture runs: one file for each mechanism, named as in lamina.arch."""
