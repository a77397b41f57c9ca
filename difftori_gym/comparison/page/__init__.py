"""The results of a comparison as one page that opens from disk: ``OUT/report.html``."""

from .write import write_page

__all__ = ["write_page"]
