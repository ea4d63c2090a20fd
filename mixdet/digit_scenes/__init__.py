"""The embedded data set: handwritten digits on crops of photographs.

`drawing` makes a scene, `files` writes the data set in COCO's layout. Neither needs torch or mmdet.
"""
