"""Serves the demo page on the loopback address."""

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


def serve(models: Sequence[str | os.PathLike], port: int = 7860) -> None:
    """Serve the page until Ctrl-C.

    Args:
        models: One or two of what `Detector` takes.
        port: 0 for any that is free.

    Raises:
        MixDetError: gradio is missing, a model cannot be opened, or the port is taken.
    """
    if importlib.util.find_spec("gradio") is None:
        raise MixDetError("the demo page needs gradio: pip install 'mixdet[demo]'")
    with _listen(port) as listener, tempfile.TemporaryDirectory(prefix="mixdet_demo_") as folder:
        app = build_app(_open(models), folder)
        import uvicorn

        print(f"http://{HOST}:{listener.getsockname()[1]} (Ctrl-C ends it)", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", limit_concurrency=256, timeout_graceful_shutdown=1
        )
        # Uvicorn raises it once more when it has stopped: the folder is to go then, too
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        uvicorn.Server(config).run(sockets=[listener])


def build_app(detectors: Mapping[str, Callable], folder: str | os.PathLike) -> Any:
    """The page as an ASGI application, behind its gate.

    Args:
        detectors: By name.
        folder: Where uploads and images with boxes lie for a while.
    """
    # Read by gradio when it is imported, and when a page is built
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder)}
    import gradio as gr
    from fastapi import FastAPI

    from mixdet.demo.page import LIMITS, STYLE, build_page, example_images

    examples = example_images(folder)
    for detector in detectors.values():
        detector(examples[0])  # the first call of a network is slow
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_few_threads),
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
async def _few_threads(app: Any) -> AsyncIterator[None]:
    """Four threads for all that blocks, not forty: the C library keeps freed memory for each."""
    from anyio.to_thread import current_default_thread_limiter

    current_default_thread_limiter().total_tokens = 4
    yield


def _open(models: Sequence[str | os.PathLike]) -> dict[str, Detector]:
    """Detectors by names that tell them apart."""
    opened = {}
    for model in models:
        name = "/".join(Path(model).resolve().parts[-2:])
        opened[name if name not in opened else str(model)] = Detector(model)
    return opened


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        raise MixDetError(f"--port {port} cannot be used ({error}): choose another") from error
