"""Labels in XMP sidecars, the small files beside photos that photo managers read."""

from vitsearch.sidecars.packet import NAMESPACE
from vitsearch.sidecars.write import SidecarReport, write_sidecars

__all__ = ["NAMESPACE", "SidecarReport", "write_sidecars"]
