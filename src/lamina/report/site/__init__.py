"""A static site of architectures: cards, a page for each, comparisons and diffs that the browser computes.

It opens from a file and fetches nothing. Python writes profiles (profile.py) and pages (pages.py, templates); the
scripts in assets price profiles, compare them and draw charts with the library in vendor.
"""

from __future__ import annotations

from lamina.report.site.build import write

__all__ = ["write"]
