"""Libraries that take long to load, and the rooms with an adapter of each."""

HEAVY = {  # a library, and the rooms with an adapter of it
    "torch": {
        "vit",
        "encoders",
        "index",
        "classifiers",
        "explain",
        "cluster",
    },
    "sklearn": {"labels"},
    "torchvision": {"encoders", "classifiers"},
    "open_clip": {"encoders"},
    "transformers": {"encoders", "classifiers"},
    "timm": {"classifiers"},
    "huggingface_hub": {"encoders"},
    "onnxruntime": {"encoders"},
    "faiss": {"index", "interop"},
    "pyarrow": {"interop", "shards", "photos", "cluster"},
    "fsspec": {"shards", "photos"},
    "pymilvus": {"milvus"},
    "fastapi": {"web"},
    "starlette": {"web"},
    "uvicorn": {"web"},
    "jinja2": {"web"},
    "pydantic": {"web"},
    "ray": {"cluster"},
}
