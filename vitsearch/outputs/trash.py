"""The system's trash (send2trash), from which a person can bring files back."""

from pathlib import Path

from send2trash import send2trash

from vitsearch.errors import PhotoError
from vitsearch.untrusted import reason


def move_to_trash(file: Path) -> None:
    """Move a file to the system's trash; raises PhotoError where that cannot be done, and the file
    stays.
    """
    try:
        send2trash(file)
    except Exception as error:  # each system's has exceptions of its own
        raise PhotoError(f"cannot be moved to the trash: {reason(error)}") from error
