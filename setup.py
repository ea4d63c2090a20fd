"""Packaging of MixDet. Tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "mixdet/__init__.py").read_text()).group(1)

TENSORBOARD = ["tensorboard>=2.15"]
FAST_EVAL = ["faster-coco-eval>=1.6.5"]
DEMO = ["gradio>=6.31"]
TEST = [
    "pytest>=8",
    "pytest-randomly>=3.15",
    "hypothesis>=6.100",
    *(*TENSORBOARD, *FAST_EVAL, *DEMO),
]

setup(
    name="mixdet",
    version=VERSION,
    description="MixNet backbones and MixConv SSDLite detectors for MMDetection",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["mixdet", "mixdet.*"]),
    package_data={"mixdet": ["py.typed", "analysis/*/page.html"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "pycocotools>=2.0.8",
        "mmengine==0.10.7",
        "mmdet==3.3.0",
        # without compiled operators: a wheel everywhere; mmdet 3.3.0 asserts mmcv < 2.2
        "mmcv-lite==2.1.0",
        "timm>=1.0.11",
        "scikit-learn>=1.3",  # the digits, and two photographs, of the embedded data set
        "scikit-image>=0.22",  # its other photographs
        "pillow>=10.1",
        "tqdm>=4.65",
    ],
    extras_require={
        "tensorboard": TENSORBOARD,
        "fast-eval": FAST_EVAL,  # CocoDetectionMetric(backend="faster_coco_eval")
        "demo": DEMO,  # tools/demo.py
        "test": TEST,
        "dev": [*TEST, "ruff>=0.9", "pre-commit>=3.5"],
    },
)
