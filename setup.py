"""Packaging of MixDet. Tool settings are in pyproject.toml."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "mixdet/__init__.py").read_text()).group(1)

TENSORBOARD = ["tensorboard>=2.15"]
FAST_EVAL = ["faster-coco-eval>=1.6.5"]
SAFETENSORS = "safetensors>=0.4"
EXPORT = [SAFETENSORS, "onnx>=1.17", "onnxscript>=0.5"]
ONNX = [*EXPORT, "onnxruntime>=1.20"]
OPENVINO = [*EXPORT, "openvino>=2025.0"]
INT8 = [*ONNX, *OPENVINO, "onnxruntime>=1.32", "nncf>=3.4"]
NCNN = [SAFETENSORS, "ncnn>=1.0.20261020", "pnnx>=20261020"]
LITERT = [SAFETENSORS, "litert-torch>=0.10", "ai-edge-litert>=2.3"]
EXECUTORCH = [SAFETENSORS, "executorch>=1.5"]
DEMO = ["gradio>=6.31"]
DOCS = ["pdoc>=15"]
OPTIONAL = [*TENSORBOARD, *FAST_EVAL, *INT8, *NCNN, *DEMO]
TEST = [
    "pytest>=8",
    "pytest-randomly>=3.15",
    "hypothesis>=6.100",
    "scipy>=1.10",
    "supervision>=0.31",  # the converter of docs/custom_data.md
    *OPTIONAL,
]


class BuildWithConfigs(build_py):
    """Configs and tools go into `mixdet/.mim`, where mim and `mixdet/config/shipped.py` look."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # they are read from the checkout
            return
        home = Path(self.build_lib, "mixdet", ".mim")
        shutil.rmtree(home, ignore_errors=True)
        ignored = shutil.ignore_patterns("__pycache__", "benchmark.py")  # benchmarks/ stays here
        for folder in ("configs", "tools"):
            shutil.copytree(HERE / folder, home / folder, ignore=ignored)
        shutil.copy(HERE / "model-index.yml", home)


setup(
    name="mixdet",
    version=VERSION,
    description="MixNet backbones and MixConv SSDLite detectors for MMDetection",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["mixdet", "mixdet.*"]),
    package_data={"mixdet": ["py.typed", "*/*.html"]},
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["mixdet=mixdet.__main__:main"]},
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
        "onnx": ONNX,
        "openvino": OPENVINO,
        "int8": INT8,
        "ncnn": NCNN,
        "litert": LITERT,
        "executorch": EXECUTORCH,
        "demo": DEMO,  # tools/demo.py
        "test": TEST,
        "docs": DOCS,  # make docs
        "dev": [
            *TEST,
            *DOCS,
            "ruff>=0.9",
            "pre-commit>=3.5",
            "pytest-cov>=6",  # make coverage
            "pip-audit>=2.7",  # make audit
        ],
    },
)
