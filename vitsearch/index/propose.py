"""What the index proposes: candidates, which the stored vectors then decide on."""

from typing import Any

import numpy as np

from vitsearch.index.exact import ExactIndex
from vitsearch.index.shadow import Shadow
from vitsearch.vectors import Vectors, top_k


def propose(shadow: Shadow | None, vector: Vectors, wanted: int, fresh: tuple[Any, Any]) -> tuple[Any, bool]:
    """Return the ids of about ``wanted`` candidates from the index and as many fresh ones, and whether asking for more gives more."""
    fresh_ids, fresh_scores = fresh
    best = top_k(fresh_scores, wanted)
    ids, more = fresh_ids[best], len(best) < len(fresh_ids)
    if shadow is not None:
        known = shadow.search(vector, wanted).ids
        if len(known) < min(wanted, len(shadow.ids)):  # lists that were not read, a graph in pieces: only the rows reach every photo
            known = ExactIndex(shadow.vectors, shadow.ids).search(vector, wanted).ids
        ids = np.concatenate([known[~np.isin(known, fresh_ids)], ids])
        more = more or len(known) < len(shadow.ids)
    return ids, more
