"""The system's trash (send2trash), from which a person can bring files back."""

from pathlib import Path

from send2trash import send2trash

from vitsearch.errors import PhotoError


def move_to_trash(file: Path) -> None:
    """Move a file to the system's trash; raises PhotoError where that cannot be done, and the file
    stays.
    """
    try:
        send2trash(file)
    except OSError as error:  # what send2trash raises itself is one too
        raise PhotoError(f"cannot be moved to the trash: {error.strerror or error}") from error
