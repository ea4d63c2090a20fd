#!/usr/bin/env bash
# OpenCV 5.0.0 applies the orientation of a JPEG, PNG, WebP or TIFF. It ignores the orientation of
# an AVIF, of a WebP or PNG with several frames, and of a JPEG whose orientation is only in XMP.
# Pillow's exif_transpose applies the orientation of all these files. If OpenCV ignores the
# orientation, boxes that were drawn in a viewer do not fit the image that cv2.imread returns.
#
# Seen, for files of 64 x 48 pixels that a viewer shows as 48 x 64 (width x height):
#   jpeg, png, webp, tiff: OpenCV 48 x 64, Pillow 48 x 64
#   avif, webp of 2 frames, png of 2 frames, jpeg with XMP: OpenCV 64 x 48, Pillow 48 x 64
#
# Exit code 0: the behavior is as stated. Exit code 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet opencv-python-headless==5.0.0.93 pillow==12.3.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'EOF'
import io
import sys

import cv2
import numpy as np
from PIL import Image, ImageOps

image, exif = Image.new("RGB", (64, 48)), Image.Exif()
exif[0x0112] = 6
exif = exif.tobytes()  # Pillow removes the tag from the object when it writes AVIF
frames = dict(save_all=True, append_images=[Image.new("RGB", (64, 48), "white")])
xmp = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""
cases = {
    "jpeg": (True, "JPEG", dict(exif=exif)),
    "png": (True, "PNG", dict(exif=exif)),
    "webp": (True, "WEBP", dict(exif=exif)),
    "tiff": (True, "TIFF", dict(exif=exif)),
    "avif": (False, "AVIF", dict(exif=exif)),
    "webp of 2 frames": (False, "WEBP", dict(exif=exif, **frames)),
    "png of 2 frames": (False, "PNG", dict(exif=exif, **frames)),
    "jpeg with XMP": (False, "JPEG", dict(xmp=xmp)),
}
as_stated = True
for name, (turned, kind, options) in cases.items():
    file = io.BytesIO()
    image.save(file, kind, **options)
    pillow = ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue()))).size
    decoded = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    opencv = decoded.shape[1::-1]
    print(f"{name}: OpenCV {opencv}, Pillow {pillow}")
    as_stated &= pillow == (48, 64) and opencv == ((48, 64) if turned else (64, 48))
sys.exit(not as_stated)
EOF
