"""Serve the demo page on the loopback address."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixdet.demo.gate import Gate
from mixdet.errors import MixDetError
from mixdet.inference import Detector

HOST = "127.0.0.1"


def serve(
    models: Sequence[str | os.PathLike],
    port: int = 7860,
    threads: int | None = None,
    runtime: str | None = None,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        models: One or two checkpoints or exported folders, as `Detector` takes them.
        port: The port to listen on. 0 takes any free port.
        threads: Number of CPU threads of each detector, as `Detector` takes it.
        runtime: Runtime of each exported folder, as `Detector` takes it.

    Raises:
        MixDetError: gradio is missing, a model cannot be opened, or the port is taken.
    """
    if importlib.util.find_spec("gradio") is None:
        raise MixDetError("the demo page needs gradio: pip install 'mixdet[demo]'")
    with _listen(port) as listener, tempfile.TemporaryDirectory(prefix="mixdet_demo_") as folder:
        app = build_app(_load_detectors(models, threads, runtime), folder)
        import uvicorn

        print(f"http://{HOST}:{listener.getsockname()[1]} (Ctrl-C ends it)", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", limit_concurrency=256, timeout_graceful_shutdown=1
        )
        # Uvicorn raises the signal again after the server has stopped. `sys.exit` then leaves the
        # `with` statement, and the temporary folder is removed.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        uvicorn.Server(config).run(sockets=[listener])


def build_app(detectors: Mapping[str, Callable], folder: str | os.PathLike) -> Any:
    """Build the page as an ASGI application behind a `Gate`.

    Args:
        detectors: One or two detectors by name.
        folder: Folder for the examples, the uploads and the images with boxes.
    """
    # Gradio reads these variables when it is imported, and when a page is built.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder)}
    import gradio as gr
    from fastapi import FastAPI

    from mixdet.demo.page import LIMITS, STYLE, build_page, example_images

    examples = example_images(folder)
    for detector in detectors.values():
        detector(examples[0])  # warm up: the first call of a network is slow
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_limit_threads),
        build_page(detectors, examples),
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        show_error=False,
        max_file_size=LIMITS.max_bytes,
        theme=gr.themes.Default(
            font=gr.themes.Font("sans-serif"), font_mono=gr.themes.Font("monospace")
        ),
        css=STYLE,
    )
    return Gate(app, folder, LIMITS.max_bytes)


@contextlib.asynccontextmanager
async def _limit_threads(app: Any) -> AsyncIterator[None]:
    """Run blocking functions in 4 threads instead of 40.

    This saves memory, since the C library keeps freed memory for each thread.
    """
    from anyio.to_thread import current_default_thread_limiter

    current_default_thread_limiter().total_tokens = 4
    yield


def _load_detectors(
    models: Sequence[str | os.PathLike], threads: int | None, runtime: str | None
) -> dict[str, Detector]:
    """Load the detectors by name.

    A name is the last two parts of the model's path, or the whole path if that name is taken.
    """
    folders = [model for model in models if Path(model).is_dir()]
    detectors = {}
    for model in models:
        name = "/".join(Path(model).resolve().parts[-2:])
        # `runtime` is for folders only. If no model is a folder, `Detector` refuses `runtime`.
        gets_runtime = model in folders or not folders
        detector = Detector(model, runtime=runtime if gets_runtime else None, threads=threads)
        detectors[name if name not in detectors else str(model)] = detector
    return detectors


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        raise MixDetError(f"--port {port} cannot be used ({error}): choose another port") from error
