"""A collection is not emptied by mistake."""

from pathlib import Path

from vitsearch.errors import CollectionError
from vitsearch.plan import Plan


def check_loss(plan: Plan, photos: Path, folder: Path, *, last_root: str, root: str) -> None:
    """Raise CollectionError rather than empty a collection because a disk is not mounted or another folder was named.

    ``root`` is the text of the photo folder's path, ``last_root`` the one that the collection in ``folder`` was last indexed from.
    """
    if not plan.loses_all:
        return
    if plan.seen == 0:
        raise CollectionError(
            f"{photos} holds no photos now, its collection holds {plan.known}: is the disk mounted? nothing was removed; "
            f"to start over delete {folder}"
        )
    if last_root != root and folder.resolve().parent != photos.resolve():
        raise CollectionError(
            f"{folder} is the collection of {last_root}, and none of its {plan.known} photos is in {photos}: "
            "name that folder, or another --collection DIR; nothing was removed"
        )
