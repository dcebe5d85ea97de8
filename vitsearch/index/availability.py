"""Whether FAISS is installed, and how many GPUs FAISS and PyTorch can use."""

import os
import sys
from importlib.util import find_spec

# at least one of them exists where there is a GPU: NVIDIA's driver, WSL, ROCm, Jetson
_DRIVERS = (
    "/proc/driver/nvidia/version",
    "/dev/nvidiactl",
    "/dev/dxg",
    "/dev/kfd",
    "/dev/nvhost-ctrl",
)


def faiss_is_installed() -> bool:
    """Return whether FAISS is installed; it is not imported."""
    return find_spec("faiss") is not None


def gpu_count() -> int:
    """Return the number of GPUs that FAISS can use, 0 without a FAISS for GPUs."""
    try:
        from vitsearch.index.faiss_index import faiss_gpu_count
    except ImportError:
        return 0
    return faiss_gpu_count()


def torch_gpu_count() -> int:
    """Return the number of GPUs that PyTorch can use, 0 without PyTorch.

    PyTorch is imported, which takes seconds, only where the system has a GPU.
    """
    no_driver = sys.platform == "linux" and not any(map(os.path.exists, _DRIVERS))
    if no_driver or find_spec("torch") is None:
        return 0
    from vitsearch.index.torch_exact import cuda_device_count

    return cuda_device_count()
