"""Models whose weights wait in their safetensors files: each tower is read when it is first used,
so a search by words reads no other.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from vitsearch.encoders.checkpoints import check_parameters, one_line
from vitsearch.errors import EncoderError

Tower = Literal["image", "text"]

_SCALARS = {
    "logit_scale",
    "logit_bias",
    "temperature",
}  # of both towers, and facts of the encoder: read at once
_WIDTHS = {"F32", "F16", "BF16"}


@contextmanager
def without_weights() -> Iterator[None]:
    """Give the modules that this thread builds parameters on the meta device; buffers (masks,
    positions) are computed as ever.
    """
    mine = threading.get_ident()

    def to_meta(
        module: nn.Module, name: str, parameter: nn.Parameter | None
    ) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta or threading.get_ident() != mine:
            return None
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    # torch forgets that a hook may return
    handle = register_module_parameter_registration_hook(to_meta)  # type: ignore[arg-type]
    try:
        with _StayOnMeta():
            yield
    finally:
        handle.remove()


class _StayOnMeta(TorchFunctionMode):
    """Lets a library move a model that it has just built to a device: what has no data stays where
    it is.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.to and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def find_weights(
    model: nn.Module, files: Sequence[Path], *, image: tuple[str, ...], unread: str = ""
) -> "LazyWeights | None":
    """Return what a model built `without_weights` waits for, or None where the files do not hold
    exactly its tensors, names and shapes.

    ``image`` are the prefixes of the image tower's names; names in the files that end with
    ``unread`` are left out. Scales of the scores are read at once.
    """
    expected = model.state_dict()
    try:
        headers = _headers(files)
    except Exception:  # whatever is wrong, the whole load says it
        return None
    held = {
        name: header
        for name, header in headers.items()
        if name in expected or not (unread and name.endswith(unread))
    }
    if held.keys() != expected.keys() or not all(
        _fits(tensor, held[name]) for name, tensor in expected.items()
    ):
        return None
    towers: dict[str, Tower] = {
        name: "image" if name.startswith(image) else "text" for name in expected.keys() - _SCALARS
    }
    if set(towers.values()) != {"image", "text"}:
        return None
    weights = LazyWeights(model, {name: header[0] for name, header in held.items()}, towers)
    weights.read_scalars()
    return weights


class LazyWeights:
    """The weights of a model that are still in their files; `load` reads those of one tower, in any
    thread, once.
    """

    def __init__(
        self, model: nn.Module, files: Mapping[str, Path], towers: Mapping[str, Tower]
    ) -> None:
        self.model = model
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self._files, self._towers = files, towers
        self._versions = {file: _version(file) for file in set(files.values())}
        self._waiting: set[Tower] = {"image", "text"}
        self._lock = threading.Lock()

    def read_scalars(self) -> None:
        """Read what belongs to neither tower."""
        self._read(self._files.keys() - self._towers.keys())

    def move(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move what is there, and what will be read, to a device and a number format, as
        ``model.to`` does.
        """
        self.device, self.dtype = device, dtype
        for module in self.model.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, self._moved(buffer))
        for parameter in self.model.parameters():
            if not parameter.is_meta:
                parameter.data = self._moved(parameter.data)

    def load(self, *towers: Tower) -> None:
        """Read the weights of these towers that still wait; raises EncoderError where a file
        changed or cannot be read.
        """
        if not self._waiting.intersection(towers):
            return
        with self._lock:
            for tower in self._waiting.intersection(towers):
                self._read({name for name, its in self._towers.items() if its == tower})
                self._waiting.discard(tower)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _read(self, names: set[str]) -> None:
        """Give the model tensors of their files, copied: a mapped file that is written to would
        change or end the process.
        """
        state: dict[str, Tensor] = {}
        for file, version in self._versions.items():
            try:
                if _version(file) != version:
                    raise EncoderError(
                        f"the weights {file} were changed while the model was in use: open it again"
                    )
                with safe_open(file, framework="pt") as tensors:
                    state |= {
                        name: self._moved(tensors.get_tensor(name), copy=True)
                        for name in names
                        if self._files[name] == file
                    }
            except EncoderError:
                raise
            except Exception as error:
                raise EncoderError(
                    f"the weights {file} cannot be read any more "
                    f"({one_line(error)}): fetch the model again"
                ) from error
        self.model.load_state_dict(state, strict=False, assign=True)

    def _moved(self, tensor: Tensor, *, copy: bool = False) -> Tensor:
        return tensor.to(
            self.device, self.dtype if tensor.is_floating_point() else tensor.dtype, copy=copy
        )


Header = tuple[Path, list[int], str]  # where a tensor is, its shape and its number format


def _headers(files: Sequence[Path]) -> dict[str, Header]:
    """Return where each tensor is; raises ValueError for files that are not safetensors or hold a
    name twice.
    """
    headers: dict[str, Header] = {}
    for file in files:
        if file.suffix != ".safetensors":
            raise ValueError(f"{file} is not in the format safetensors")
        with safe_open(file, framework="pt") as tensors:
            # it is not a mapping
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            here: dict[str, Header] = {
                name: (file, list(part.get_shape()), part.get_dtype())
                for name, part in slices.items()
            }
        if headers.keys() & here.keys():
            raise ValueError(f"{file} repeats {min(headers.keys() & here.keys())}")
        headers |= here
    return headers


def _fits(tensor: Tensor, header: Header) -> bool:
    _, shape, width = header
    return list(tensor.shape) == shape and (width in _WIDTHS) == tensor.is_floating_point()


def _version(file: Path) -> tuple[int, int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def build_lazily(
    build: Callable[[], nn.Module], files: Sequence[Path], name: str
) -> nn.Module | None:
    """Return what ``build`` makes, without weights, or None where it fails: the whole load then
    succeeds or says what is wrong.

    Raises EncoderError for a model far larger than the ``files`` of its weights.
    """
    try:
        with without_weights():
            net = build().eval()
        check_parameters(sum(part.numel() for part in net.parameters()), files, name)
        return net
    except EncoderError:
        raise
    except ImportError:
        raise
    except Exception:
        return None
