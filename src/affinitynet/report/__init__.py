"""What a run folder tells: one HTML file, a table for the terminal, a figure of strips.

Reads finished files only; never a model, and importing it costs no torch.
"""

from affinitynet.report.html import write_report
from affinitynet.report.poster import write_strip
from affinitynet.report.table import print_figures

__all__ = ["print_figures", "write_report", "write_strip"]
