"""Take a run's masks to other software. Reads finished files only; importing it costs no torch."""

from affinitynet.export.folders import export_run

__all__ = ["export_run"]
