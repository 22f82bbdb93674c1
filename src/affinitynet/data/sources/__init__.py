"""What other programs made, read in the forms they write: CAMs, label maps and affinities.

Every reader checks class numbers, size and values at once, and names the file and the entry.
"""

from affinitynet.data.sources.affinity import SourceAffinity, read_affinity_source
from affinitynet.data.sources.cams import SourceCams, read_cams
from affinitynet.data.sources.find import by_last_part, find_source
from affinitynet.data.sources.labels import read_labels_source

__all__ = [
    "SourceAffinity",
    "SourceCams",
    "by_last_part",
    "find_source",
    "read_affinity_source",
    "read_cams",
    "read_labels_source",
]
