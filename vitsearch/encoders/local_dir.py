"""``local-dir:/path``: a model in a folder, as open_clip or as transformers saves it; nothing is downloaded."""

from typing import TYPE_CHECKING

from vitsearch.encoders.model_files import local_folder
from vitsearch.errors import EncoderError

if TYPE_CHECKING:
    from vitsearch.encoders.torch_encoder import TorchEncoder

OPEN_CLIP_CONFIG = "open_clip_config.json"
TRANSFORMERS_CONFIG = "config.json"


def load_local_dir(path: str, *, device: str = "auto", dtype: str = "auto") -> "TorchEncoder":
    """Return the encoder in a folder of either layout; where both are there, open_clip's.

    An open_clip folder holds ``open_clip_config.json`` and weights, a transformers folder ``config.json``, ``model.safetensors``,
    ``preprocessor_config.json`` and a tokenizer. Raises EncoderError naming the file that is missing or damaged.
    """
    folder = local_folder(path)
    name = f"local-dir:{folder}"
    if (folder / OPEN_CLIP_CONFIG).is_file():
        from vitsearch.encoders.open_clip_folder import load_open_clip_folder

        return load_open_clip_folder(folder, name, device=device, dtype=dtype)
    if (folder / TRANSFORMERS_CONFIG).is_file():
        from vitsearch.encoders.hf import load_transformers_folder

        return load_transformers_folder(folder, name, device=device, dtype=dtype)
    raise EncoderError(
        f"the folder {folder} holds no model: neither {OPEN_CLIP_CONFIG} (open_clip) nor {TRANSFORMERS_CONFIG} (transformers) is in it"
    )
