"""What of FAISS, and of GPUs, is on this machine."""

import os
import sys
from importlib.util import find_spec

# one of them is there where a GPU is: NVIDIA's driver, WSL, ROCm, Jetson
_DRIVERS = (
    "/proc/driver/nvidia/version",
    "/dev/nvidiactl",
    "/dev/dxg",
    "/dev/kfd",
    "/dev/nvhost-ctrl",
)


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


def torch_gpus() -> int:
    """Return the number of GPUs that PyTorch can use, 0 without it; it is imported, which takes
    seconds, where the system has a GPU.
    """
    no_driver = sys.platform == "linux" and not any(map(os.path.exists, _DRIVERS))
    if no_driver or find_spec("torch") is None:
        return 0
    from vitsearch.index.torch_exact import cuda_devices

    return cuda_devices()
