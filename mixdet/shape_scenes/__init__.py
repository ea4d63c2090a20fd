"""Scenes of invented objects on photographs, to pretrain a detector without any real data set.

`drawing` draws a scene, `files` writes scenes in COCO's layout.
"""
