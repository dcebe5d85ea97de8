"""What of FAISS is on this machine."""

from importlib.util import find_spec


def faiss_is_here() -> bool:
    """Return whether FAISS is installed; it is not imported."""
    return find_spec("faiss") is not None


def gpus() -> int:
    """Return the number of GPUs that FAISS can use, 0 without a FAISS for GPUs."""
    try:
        from vitsearch.index.faiss_index import gpu_count
    except ImportError:
        return 0
    return gpu_count()
