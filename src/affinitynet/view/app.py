"""The page's requests: each is looked up by an image's number or a fixed name, never by a path."""

import gzip
import io
import json
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from affinitynet.data import load_picture
from affinitynet.data.corrections import write_correction
from affinitynet.data.images import read_size
from affinitynet.errors import UserError
from affinitynet.report.pictures import draw_labels, fit, resize_image, resize_labels
from affinitynet.view.applying import apply_settings
from affinitynet.view.deciding import Decider
from affinitynet.view.viewed import Viewed

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

STATIC = {
    "": ("page.html", "text/html; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "app.js": ("app.js", "text/javascript; charset=utf-8"),
    "server.js": ("server.js", "text/javascript; charset=utf-8"),
    "grid.js": ("grid.js", "text/javascript; charset=utf-8"),
    "canvas.js": ("canvas.js", "text/javascript; charset=utf-8"),
    "editor.js": ("editor.js", "text/javascript; charset=utf-8"),
    "painting.js": ("painting.js", "text/javascript; charset=utf-8"),
    "settings.js": ("settings.js", "text/javascript; charset=utf-8"),
}
THUMBNAIL = 200  # pixels of the long side
_MOST_JSON = 10_000  # bytes of what the page sends, but for corrections


def make_app(viewed: Viewed, decider: Decider) -> "Starlette":
    """Return the application that answers the page of a run."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    pages = {
        name: (files("affinitynet.view").joinpath(file).read_bytes(), kind)
        for name, (file, kind) in STATIC.items()
    }

    def page(request: Request) -> Response:
        found = pages.get(request.path_params.get("name", ""))
        if found is None:
            return JSONResponse({"error": "nothing here"}, 404)
        return Response(found[0], media_type=found[1])

    def run(request: Request) -> Response:
        return JSONResponse(viewed.facts())

    def measures(request: Request) -> Response:
        return JSONResponse([viewed.measures[key] for key in sorted(viewed.measures)])

    def image(request: Request) -> Response:
        sample = viewed.sample(request.path_params["index"])
        pixels = load_picture(sample.image, sample.reading)
        return Response(_jpeg(pixels, 93), media_type="image/jpeg")

    def thumbnail(request: Request) -> Response:
        return Response(_thumbnail(viewed, request.path_params["index"]), media_type="image/jpeg")

    def layer(request: Request) -> Response:
        planes = viewed.planes(request.path_params["index"], request.path_params["layer"])
        # Not 404: a browser would write each layer that is not made into its console.
        return Response(status_code=204) if planes is None else _planes(planes)

    async def decide(request: Request) -> Response:
        sent = await _read_json(request)
        settings = decider.settings(sent.get("settings", {}))
        index, draft = request.path_params["index"], bool(sent.get("draft"))
        return _planes((await _in_thread(decider.decide, index, settings, draft))[None])

    async def affinities(request: Request) -> Response:
        sent = await _read_json(request)
        settings = decider.settings(sent.get("settings", {}))
        x, y = sent.get("x"), sent.get("y")
        if type(x) is not int or type(y) is not int:
            raise UserError("a click needs whole numbers x and y")
        index = request.path_params["index"]
        near, reach, stride = await _in_thread(decider.spread, index, x, y, settings)
        # Roots: what is a hundredth of the largest value can still be seen and chosen.
        answer = _planes(np.rint(np.sqrt(np.stack([near, reach])) * 255).astype(np.uint8))
        answer.headers["x-stride"] = str(stride)
        return answer

    async def correct(request: Request) -> Response:
        sample = viewed.sample(request.path_params["index"])
        size = read_size(sample.image, sample.reading)
        kind = np.dtype("u1" if viewed.manifest.ignore_index == 255 else "<u2")
        body = await _read(request, size[0] * size[1] * kind.itemsize)
        if len(body) != size[0] * size[1] * kind.itemsize:
            raise UserError(f"{sample.id}: the correction is not of the image's size")
        labels: NDArray[np.integer] = np.frombuffer(body, kind).reshape(size)
        write_correction(viewed.root, viewed.manifest, sample, labels)
        viewed.measure(request.path_params["index"])
        there = viewed.correction(sample).is_file()
        return JSONResponse({"corrected": there, "state": viewed.state()})

    async def apply(request: Request) -> Response:
        sent = await _read_json(request)
        done = apply_settings(viewed, sent.get("settings", {}))
        return JSONResponse({**done, "state": viewed.state()})

    def complain(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 400)

    def get(path: str, work: Callable[[Request], Response]) -> Route:
        return Route(path, work, methods=["GET"])

    return Starlette(
        routes=[
            get("/run.json", run),
            get("/measures.json", measures),
            get("/images/{index:int}", image),
            get("/thumbnails/{index:int}", thumbnail),
            get("/layers/{index:int}/{layer}", layer),
            Route("/decide/{index:int}", decide, methods=["POST"]),
            Route("/affinities/{index:int}", affinities, methods=["POST"]),
            Route("/corrections/{index:int}", correct, methods=["PUT"]),
            Route("/apply", apply, methods=["POST"]),
            get("/", page),
            get("/{name}", page),
        ],
        exception_handlers={UserError: complain},
    )


async def _in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(work, *arguments)


async def _read(request: "Request", most: int) -> bytes:
    """Read what was sent; UserError where it is more than `most` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise UserError("the page sent more than expected")
    return bytes(body)


async def _read_json(request: "Request") -> dict[str, Any]:
    try:
        sent = json.loads(await _read(request, _MOST_JSON))
    except (ValueError, RecursionError) as error:
        raise UserError("the page sent no JSON") from error
    if not isinstance(sent, dict) or not isinstance(sent.get("settings", {}), dict):
        raise UserError("the page sent no JSON object")
    return sent


def _planes(planes: NDArray[np.integer]) -> "Response":
    """Send maps (n, H, W) as bytes; little endian where they have 16 bits."""
    from starlette.responses import Response

    wide = planes.dtype.itemsize > 1
    array = np.ascontiguousarray(planes, np.dtype("<u2") if wide else np.uint8)
    headers = {
        "content-encoding": "gzip",
        "x-shape": ",".join(map(str, array.shape)),
        "x-type": "uint16" if wide else "uint8",
    }
    # Level 1: a tenth of the bytes for a millisecond or two.
    body = gzip.compress(array.tobytes(), 1)
    return Response(body, media_type="application/octet-stream", headers=headers)


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _thumbnail(viewed: Viewed, index: int) -> bytes:
    sample = viewed.sample(index)
    image = load_picture(sample.image, sample.reading)
    size = fit(image.shape[0], image.shape[1], THUMBNAIL)
    small = resize_image(image, size)
    mask = viewed.final_labels(sample)
    if mask is not None:
        small = draw_labels(small, resize_labels(mask, size), viewed.manifest.ignore_index)
    return _jpeg(small, 82)
