"""The build step that pyproject.toml cannot declare: a wheel contains the configs and the tools."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildWithConfigs(build_py):
    """Copy configs and tools into `mixdet/.mim`. mim and `mixdet/config/shipped.py` look there."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # configs and tools are read from the checkout
            return
        home = Path(self.build_lib, "mixdet", ".mim")
        shutil.rmtree(home, ignore_errors=True)
        # A wheel does not contain benchmarks/, which tools/benchmark.py needs.
        ignored = shutil.ignore_patterns("__pycache__", "benchmark.py")
        for folder in ("configs", "tools"):
            shutil.copytree(HERE / folder, home / folder, ignore=ignored)
        shutil.copy(HERE / "model-index.yml", home)


setup(cmdclass={"build_py": BuildWithConfigs})
