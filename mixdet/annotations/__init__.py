"""Read COCO annotation files. Only this package decides what missing and unusual fields mean.

Data sets and evaluators read missing and unusual fields differently. `AnnotationTable.objects`
therefore normalizes them, so that training, the data check and every evaluator use the same boxes:

- A missing `iscrowd` is 0.
- An `area` that is missing or not above 0 is the width times the height of the box.
- `ignore`, which converters write for PASCAL VOC's `difficult`, makes the box a crowd. In training,
  a crowd is not an object, and `MixConvSSDHead` does not take it for background. With other heads,
  a crowd is background unless their assigner has an `ignore_iof_thr` above 0. In evaluation,
  detections of a crowd do not count.
- A box whose width or height is not above 0 is left out.
- A box of an image or a category that is not in the file is left out.
- If any annotation id is repeated or is not a whole number above 0, all annotations get new ids.
- Anything else that is not in COCO's format is refused.

A file is read once per process: `reading.read_table` returns the same table again as long as the
file does not change.
"""
