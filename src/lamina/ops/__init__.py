"""The arithmetic: for each fast op its readable twin."""
