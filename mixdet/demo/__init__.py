"""A web page on this machine that shows the boxes of one or two detectors.

`serve` serves the page, `page` builds it, and `gate` refuses requests from anywhere else.
gradio draws the page. It is an optional package, and is imported when the page is served.
"""

from mixdet.demo.server import serve

__all__ = ["serve"]
