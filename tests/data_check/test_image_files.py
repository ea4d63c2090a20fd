"""`check_data` reads the image files in threads, and reports what it has read after Ctrl-C."""

from __future__ import annotations

import json
import os
import runpy
import signal
import time

import pytest

from mixdet.config.read import load_config
from mixdet.data_check import full_check, image_file_checks
from tests.conftest import ROOT
from tests.tiny import IMAGES, write_config


def damage(data, count):
    for number in range(1, count + 1):
        (data / "train2017" / f"{number}.png").write_bytes(b"no image")


@pytest.mark.parametrize("workers", [1, 3, None])
def test_the_report_does_not_depend_on_the_number_of_threads(images_copy, tmp_path, workers):
    damage(images_copy, 9)
    report = full_check(load_config(write_config(tmp_path, images_copy)), workers)
    (problem,) = [problem for problem in report.problems if problem.code == "broken_images"]
    assert problem.count == 9
    names = [example.text.partition(".png")[0].rpartition("/")[2] for example in problem.examples]
    assert names == ["1", "2", "3", "4", "5"]


def test_ctrl_c_reports_what_was_checked_so_far(images_copy, tmp_path, monkeypatch, call_main):
    damage(images_copy, 3)
    decode, calls = image_file_checks.decode_fully, []

    def interrupt_at_6(*arguments):
        calls.append(arguments)
        if len(calls) == 6:
            time.sleep(0.5)  # the main thread takes the earlier results meanwhile
            os.kill(os.getpid(), signal.SIGINT)
        return decode(*arguments)

    monkeypatch.setattr(image_file_checks, "decode_fully", interrupt_at_6)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    config, out = write_config(tmp_path, images_copy), tmp_path / "report.json"
    tool = lambda: runpy.run_path(str(ROOT / "tools/check_data.py"), run_name="__main__")  # noqa: E731
    try:
        arguments = (config, "--workers", 1, "--json", out)
        code, text, err = call_main(tool, "check_data.py", *arguments)
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130, err
    unread = json.loads(out.read_text())["unread_images"]
    assert 0 < unread < 2 * IMAGES
    assert f"interrupted: {unread} images were not read" in text
    assert "images that cannot be used (3 cases)" in text
    assert "nothing is wrong" not in text


@pytest.mark.parametrize("workers", ["0", "-1", "many"])
def test_a_number_of_threads_below_1_is_refused(call_main, workers):
    tool = lambda: runpy.run_path(str(ROOT / "tools/check_data.py"), run_name="__main__")  # noqa: E731
    code, _, err = call_main(tool, "check_data.py", "config.py", "--workers", workers)
    assert code == 2
    assert "--workers" in err
