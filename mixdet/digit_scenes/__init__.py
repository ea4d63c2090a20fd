"""The built-in data set: handwritten digits on crops of photographs.

`drawing` draws a scene, and `files` writes the data set in COCO's format. Neither needs torch or
mmdet.
"""

from mixdet.digit_scenes.drawing import Scene, make_scene
from mixdet.digit_scenes.files import ensure_digit_scenes, make_digit_scenes

__all__ = ["Scene", "ensure_digit_scenes", "make_digit_scenes", "make_scene"]
