"""tools/demo.py refuses wrong arguments. Its page works in a browser and with many visitors."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mixdet.demo import serve, server
from mixdet.errors import MixDetError
from mixdet.inference import Detections
from tests.browser import CHROMIUM, Browser
from tests.conftest import ROOT
from tests.untrained import save_untrained

TOOL = [sys.executable, str(ROOT / "tools" / "demo.py")]


class TestRefusals:
    def test_missing_gradio_is_named(self, monkeypatch):
        monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(MixDetError, match=re.escape("pip install 'mixdet[demo]'")):
            serve(["a.pth"])

    def test_a_port_in_use_or_out_of_range_is_named(self, monkeypatch):
        monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: True)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(MixDetError, match=f"--port {port}"):
                serve(["a.pth"], port)
        with pytest.raises(MixDetError, match="--port 70000"):
            serve(["a.pth"], 70000)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ((), "gone.pth: no such checkpoint file or exported folder"),
            (("--threads", "0"), "threads=0"),
            (("--runtime", "ncnn"), "gone.pth"),
        ],
    )
    def test_arguments_that_the_detector_refuses_lead_to_an_error_of_one_line(self, options, words):
        pytest.importorskip("gradio")
        command = [*TOOL, "gone.pth", "--port", "0", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_runtime_applies_only_to_exported_folders_if_there_are_any(monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(server, "Detector", lambda model, **options: opened.append(options))
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(server, "build_app", lambda *_: sys.exit("built"))
    for models, runtimes in (
        ([tmp_path, "epoch_1.pth"], ["openvino", None]),
        (["epoch_1.pth"], ["openvino"]),  # a real detector refuses this runtime
    ):
        opened.clear()
        with pytest.raises(SystemExit, match="built"):
            serve(models, port=0, threads=2, runtime="openvino")
        assert [options["runtime"] for options in opened] == runtimes
        assert {options["threads"] for options in opened} == {2}


def test_listens_on_the_loopback_address_only(monkeypatch):
    pytest.importorskip("gradio")
    uvicorn = pytest.importorskip("uvicorn")
    addresses = []

    def run(self, sockets):
        addresses.extend(listener.getsockname()[0] for listener in sockets)

    monkeypatch.setattr(uvicorn, "Server", lambda config: SimpleNamespace(run=run.__get__(config)))
    monkeypatch.setattr(server, "Detector", lambda model, **options: FakeDetector())
    monkeypatch.setattr(server, "build_app", lambda detectors, folder: None)
    # `serve` would replace a signal handler of this process.
    monkeypatch.setattr("signal.signal", lambda *_: None)
    serve(["a.pth"], port=0)
    assert addresses == ["127.0.0.1"]


class FakeDetector:
    """A detector that returns boxes with scores from 0.1 to 0.9, and records the images it gets."""

    def __init__(self, boxes: int = 9, seconds: float = 0) -> None:
        self.boxes, self.seconds, self.received = boxes, seconds, []

    def __call__(self, image, *, score_thr=0.0):
        if isinstance(image, np.ndarray):
            self.received.append(int(image[0, 0, 0]))
            time.sleep(self.seconds)
        edges = np.arange(self.boxes, dtype=np.float32)[:, None] * 10
        boxes = np.hstack([edges, edges, edges + 40, edges + 40])
        scores = np.linspace(0.9, 0.1, self.boxes).astype(np.float32)
        names = ["thing"] * self.boxes
        return Detections(boxes, scores, np.arange(self.boxes), names).above(score_thr)


@contextlib.contextmanager
def served(detectors, folder):
    """Serve the page in a thread of this process, and return its address."""
    uvicorn = pytest.importorskip("uvicorn")
    with pytest.MonkeyPatch.context() as patch:
        # The server sets these variables; the context restores them.
        patch.setenv("GRADIO_TEMP_DIR", "")
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "")
        app = server.build_app(detectors, folder)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        running = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                running.should_exit = True
                thread.join()


@pytest.mark.heavy
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
class TestInABrowser:
    @pytest.fixture(scope="class")
    def models(self):
        return {"first/model.pth": FakeDetector(), "second": FakeDetector(3)}

    @pytest.fixture(scope="class")
    def address(self, models, tmp_path_factory):
        with served(models, tmp_path_factory.mktemp("served")) as address:
            yield address

    @pytest.fixture
    def browser(self, address, tmp_path):
        browser = Browser(tmp_path / "profile")
        try:
            browser.open(address)
            browser.wait("document.querySelector('#image input[type=file]')")
            yield browser
            assert browser.console == []
            asked = {request.split("/gradio_api")[0] for request in browser.requests}
            assert all(request.startswith(f"{address}") for request in asked), asked
        finally:
            browser.close()

    def wait_for_boxes(self, browser, index: int, words: str) -> None:
        """Wait for the line that counts the boxes, and for the image above it."""
        browser.wait(f"document.querySelector('#count{index}')?.innerText.startsWith('{words} in')")
        browser.wait(f"document.querySelector('#boxes{index} img')?.naturalWidth")

    def test_the_threshold_redraws_without_running_detectors(self, browser, models, tmp_path):
        Image.new("RGB", (600, 400), (90, 90, 90)).save(tmp_path / "a.png")
        browser.upload("#image input[type=file]", tmp_path / "a.png")
        self.wait_for_boxes(browser, 0, "7 boxes")
        self.wait_for_boxes(browser, 1, "2 boxes")
        red = """(async () => {
            const image = document.querySelector('#boxes0 img'), canvas = new OffscreenCanvas(
                image.naturalWidth, image.naturalHeight), pen = canvas.getContext('2d');
            await image.decode();
            pen.drawImage(image, 0, 0);
            const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
            let colored = 0;
            for (let i = 0; i < pixels.length; i += 4)
                colored += Math.abs(pixels[i] - 90) + Math.abs(pixels[i + 2] - 90) > 90;
            return colored;
        })()"""
        before, asked = browser.run(red), [len(model.received) for model in models.values()]
        assert before > 1000
        slide = """(() => {
            const slider = document.querySelector('#threshold input[type=range]');
            slider.value = %s;
            slider.dispatchEvent(new Event('input', {bubbles: true}));
            return true;
        })()"""
        browser.run(slide % 0.75)
        self.wait_for_boxes(browser, 0, "2 boxes")
        self.wait_for_boxes(browser, 1, "1 box")
        browser.wait(f"{red}.then(pixels => pixels && pixels < {before} / 2)")
        assert [len(model.received) for model in models.values()] == asked
        browser.run(slide % 0.05)
        self.wait_for_boxes(browser, 0, "9 boxes")
        assert [len(model.received) for model in models.values()] == asked

    def test_an_example_can_be_clicked_and_cleared(self, browser):
        browser.wait("document.querySelectorAll('.gallery-item').length == 6")
        browser.run("document.querySelector('.gallery-item').click()")
        self.wait_for_boxes(browser, 0, "7 boxes")
        self.press(browser, "clear|remove")
        browser.wait("!document.querySelector('#boxes0 img')")

    def press(self, browser, name: str) -> None:
        """Wait for a button of the image, and click it."""
        script = """[...document.querySelectorAll('#image button')].some(button => {
            const matches = /NAME/i.test(button.ariaLabel + button.title + button.innerText);
            if (matches) button.click();
            return matches;
        })"""
        browser.wait(script.replace("NAME", name))

    def test_a_photo_taken_with_the_camera_gets_boxes(self, browser):
        self.press(browser, "capture from camera")
        self.press(browser, "access webcam")
        browser.wait("document.querySelector('#image video')?.videoWidth")
        self.press(browser, "capture photo")
        self.wait_for_boxes(browser, 0, "7 boxes")

    def test_a_file_that_is_no_image_is_refused_by_name(self, browser, models, tmp_path):
        asked = len(models["second"].received)
        (tmp_path / "a.png").write_bytes(b"not an image")
        browser.upload("#image input[type=file]", tmp_path / "a.png")
        browser.wait("document.body.innerText.includes('a.png: the image is damaged')")
        assert len(models["second"].received) == asked

    @pytest.mark.parametrize("width", [1280, 390])
    def test_results_are_side_by_side_only_in_a_wide_window(self, browser, width, tmp_path):
        browser.resize(width, 900)
        Image.new("RGB", (1500, 400), (90, 90, 90)).save(tmp_path / "a.png")
        browser.upload("#image input[type=file]", tmp_path / "a.png")
        self.wait_for_boxes(browser, 0, "7 boxes")
        assert browser.run("document.documentElement.scrollWidth") <= width
        rows = browser.run(
            "['#boxes0', '#boxes1'].map(s => document.querySelector(s).getBoundingClientRect().top)"
        )
        assert (rows[0] == rows[1]) == (width == 1280)


class Crowd:
    """Many visitors. Each has an image of one gray value, which identifies the visitor."""

    def __init__(self, address: str, folder: Path, size: int) -> None:
        import httpx

        limits = httpx.Limits(max_connections=None)
        self.client = httpx.Client(base_url=f"{address}/gradio_api", timeout=120, limits=limits)
        self.files = []
        for gray in range(size):
            file = folder / f"{gray}.png"
            Image.new("RGB", (640, 480), (gray,) * 3).save(file)
            sent = {"files": (file.name, file.read_bytes(), "image/png")}
            self.files.append(self.client.post("/upload", files=sent).json()[0])

    def ask(self, name: str) -> tuple[list[int], list[int]]:
        """Send all images at once; return the gray values of accepted and of refused images."""
        accepted, refused = [], []
        for gray, path in enumerate(self.files):
            file = {"path": path, "meta": {"_type": "gradio.FileData"}}
            session = f"{name}{gray}"
            body = {"data": [file, 0.3], "fn_index": self.function, "session_hash": session}
            answer = self.client.post("/queue/join", json=body)
            assert answer.status_code in (200, 503), answer.text
            (accepted if answer.status_code == 200 else refused).append(gray)
        with ThreadPoolExecutor(len(self.files)) as pool:
            done = list(pool.map(lambda gray: self.result(f"{name}{gray}"), accepted))
        assert all("boxes**" in output[2] for output in done), done[0]
        return accepted, refused

    @property
    def function(self) -> int:
        config = self.client.get(str(self.client.base_url.join("/config"))).json()
        return next(call["id"] for call in config["dependencies"] if call["api_name"] == "on_image")

    def result(self, session: str) -> list:
        with self.client.stream("GET", "/queue/data", params={"session_hash": session}) as lines:
            for line in lines.iter_lines():
                event = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if event.get("msg") == "process_completed":
                    assert event["success"], event
                    return event["output"]["data"]
        raise AssertionError("no answer")


@pytest.mark.heavy
def test_fifty_visitors_are_answered_in_order_or_refused(tmp_path):
    network = FakeDetector(seconds=0.5)
    (tmp_path / "served").mkdir()
    with served({"stand": network}, tmp_path / "served") as address:
        accepted, refused = Crowd(address, tmp_path, 50).ask("a")
    assert network.received == accepted
    assert len(accepted) >= 32
    assert sorted(accepted + refused) == list(range(50))
    assert refused


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_the_tool_does_not_grow(tmp_path):
    pytest.importorskip("gradio")
    checkpoint = save_untrained(tmp_path / "model.pth")
    call = [*TOOL, str(checkpoint), "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "scratch")}
    (tmp_path / "scratch").mkdir()
    tool = subprocess.Popen(call, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    try:
        crowd = Crowd(tool.stdout.readline().split()[0], tmp_path, 50)
        resident = []
        for number in range(9):
            accepted, _ = crowd.ask(f"round{number}visitor")
            assert len(accepted) >= 32
            status = Path(f"/proc/{tool.pid}/status").read_text()
            resident.append(int(re.search(r"VmRSS:\s*(\d+) kB", status).group(1)) / 1024)
        # If the server kept every visitor's image, its memory would grow by 180 MiB.
        assert resident[-1] - resident[2] < 60, resident
    finally:
        tool.terminate()
        tool.wait(30)
    assert list((tmp_path / "scratch").glob("mixdet_demo_*")) == []
