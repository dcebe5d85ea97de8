"""`vitsearch prepare-model`: the export of a model for ONNX Runtime, made ahead."""

from dataclasses import asdict

import click

from vitsearch.cli import show
from vitsearch.cli.options import JSON


@click.command("prepare-model")
@click.argument("name")
@click.option("--dtype", type=click.Choice(["float32", "int8"]), default="float32", show_default=True, help="The number format.")
@JSON
def prepare(name: str, dtype: str, as_json: bool) -> int:
    """Export the model NAME for ONNX Runtime, so that it runs on the CPU without PyTorch; `vitsearch index` does it by itself.

    int8 is smaller and, on most processors, faster; its vectors differ a little and fit only a collection that was made with it.
    """
    from vitsearch.encoders import prepare_model

    prepared = prepare_model(name, dtype=dtype)
    if as_json:
        show.json_line(asdict(prepared))
        return 0
    done = "exported" if prepared.made else "was there already"
    show.line(f"{show.printable(prepared.name)} in {dtype}: {done}, {show.size(prepared.size_bytes)} in {show.printable(prepared.folder)}")
    show.line(f"vectors of fixed pictures and texts: cosine of at least {prepared.cosine:.5f} to those of PyTorch in float32")
    return 0
