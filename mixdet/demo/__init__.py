"""A web page on this machine that shows the boxes of one or two detectors.

`serve` serves the page, `page` builds it, and `gate` refuses requests that do not come from the
page. The page is made with gradio, an optional package that is imported when the page is served.
"""

from mixdet.demo.server import serve

__all__ = ["serve"]
