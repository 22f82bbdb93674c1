"""The live page of a run: a small server on this computer, and one static page; no torch at import.

It needs the extra `view` (Starlette and uvicorn).
"""

from affinitynet.view.server import view_run

__all__ = ["view_run"]
