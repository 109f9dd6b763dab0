"""Writes one HTML page with the tables and figures of a recipe's folder.

python recipes/report.py runs/digits
"""

import pathlib
import sys

# Runs in a clone, with the package installed or not.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from recipes.experiment import command
from recipes.experiment import options


def main(given=None):
    parser = options.make_parser(__doc__, ["report"])
    settings = parser.parse_args(given)
    output = settings.output or settings.folder / "report.html"
    if output.suffix != ".html":
        parser.error(
            "The page cannot be written. Expected a file that ends with .html. "
            f"Received: {output}"
        )
    from recipes.results import page

    try:
        page.write_page(settings.folder, output)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"wrote {output}")


if __name__ == "__main__":
    command.run(main)
