"""Results of the parts of a run: a line of JSON each, written as they come."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Result:
    """One figure, or a word such as "skipped"; ``beside`` says what it depends on."""

    part: str
    name: str
    value: float | str
    unit: str = ""
    beside: str = ""


class Report:
    """The results of one part."""

    def __init__(self, file: Path, part: str) -> None:
        self._file, self._part = file, part

    def add(self, name: str, value: float | str, unit: str = "", beside: str = "") -> None:
        """Write a result and print it."""
        result = Result(self._part, name, value, unit, beside)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")
        print(line(result), flush=True)


def read_results(file: Path) -> list[Result]:
    """Return the results in a file, in their order."""
    return [Result(**json.loads(each)) for each in file.read_text(encoding="utf-8").splitlines()]


def line(result: Result) -> str:
    """Return a result as a row of the table."""
    value = f"{result.value:,.6g}" if isinstance(result.value, float) else str(result.value)
    shown = f"{value} {result.unit}".strip()
    return f"| {result.part} | {result.name} | {shown} | {result.beside} |"


HEADER = "| part | what | result | |\n|---|---|---|---|"
