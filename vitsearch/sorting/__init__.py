"""Photos sorted into one folder for each label, as links or copies; the photos themselves stay where and as they are."""

from vitsearch.sorting.manifest import MANIFEST
from vitsearch.sorting.names import folder_names
from vitsearch.sorting.sort import SortReport, check_target, sort_into

__all__ = ["MANIFEST", "SortReport", "check_target", "folder_names", "sort_into"]
