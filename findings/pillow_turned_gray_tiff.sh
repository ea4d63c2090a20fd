#!/usr/bin/env bash
# Pillow 12.3.0 mixes up the pixels of an uncompressed gray TIFF if its orientation is a quarter turn
# and the file is opened by its path. If the same bytes are opened as a stream, the pixels are right.
#
# Pillow turns a TIFF upright during decoding. It maps a file that is opened by its path into memory.
# For this map, Pillow uses the row length of the turned image instead of the stored image. The shape
# of the result is wrong too.
#
# Seen, for the pixels [[0, 1, 2], [3, 4, 5]] with orientation 6 (turn clockwise):
#   stream: [[3, 0], [4, 1], [5, 2]]
#   path:   [[4, 2, 0], [5, 3, 1]]
#
# Exit code 0: the behavior is as stated. Exit code 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==12.3.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'EOF'
import io
import sys

import numpy as np
from PIL import Image

exif = Image.Exif()
exif[0x0112] = 6
Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)).save("gray.tif", exif=exif)
with open("gray.tif", "rb") as file:
    stream = np.asarray(Image.open(io.BytesIO(file.read()))).tolist()
path = np.asarray(Image.open("gray.tif")).tolist()
print("stream:", stream)
print("path:  ", path)
right = [[3, 0], [4, 1], [5, 2]]
sys.exit(not (stream == right and path == [[4, 2, 0], [5, 3, 1]]))
EOF
