"""A web page on this machine alone: an image or the camera in, one or two detectors' boxes out.

`page` is what is seen, `gate` what may reach it, `server` puts them together; the last imports
gradio only when it serves, and names the extra where it is missing.
"""
