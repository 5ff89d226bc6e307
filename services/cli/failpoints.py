"""`colloquy failpoints`: the points at which a fault can be had by name."""

import json
import sys

from libs.failpoints.catalogue import POINTS


def tell(*, as_json: bool) -> None:
    """Print every failpoint with the service whose process has it and where it is."""
    points = POINTS.values()
    if as_json:
        said = json.dumps(
            [{"name": point.name, "service": point.service, "meaning": point.meaning} for point in points], indent=2
        )
    else:
        name, service = (
            max(map(len, column)) for column in zip(*((it.name, it.service) for it in points), strict=True)
        )
        said = "\n".join(f"{it.name:{name}}  {it.service:{service}}  {it.meaning}" for it in points)
    sys.stdout.write(f"{said}\n")
