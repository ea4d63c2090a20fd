"""A web page on this machine that shows the boxes of one or two detectors.

`serve` serves the page. It is built in `page`, and `gate` refuses the requests that it does not
need. gradio, which draws the page, is optional and is imported when the page is served.
"""

from mixdet.demo.server import serve

__all__ = ["serve"]
