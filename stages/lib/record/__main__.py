"""Write report/run.html: the page of the stage report, with the record of the run in it.

python -m stages.lib.record        # make report
"""

import logging
from pathlib import Path

import click

from stages.lib.command import WRITE, DistilleryError, one_line_errors
from stages.lib.page.templates import page_environment
from stages.lib.record.facts import Record, read_record
from stages.lib.rows import writing

log = logging.getLogger("distillery.record")

FROM, TO = "<!-- the record of the run -->", "<!-- its end -->"


class RecordError(DistilleryError):
    """There is no page to put the record into."""


@click.command(help="Write a copy of the page with the record of the run: cost, params, versions, hashes, commit.")
@click.option("--page", "page_path", type=WRITE, default="report/index.html", show_default=True, help="The page, read.")
@click.option("--out", "out_path", type=WRITE, default="report/run.html", show_default=True, help="The copy, written.")
@one_line_errors
def main(page_path: Path, out_path: Path) -> None:
    if not page_path.is_file():
        raise RecordError(f"{page_path}: no such file. Run 'make report'.")
    page = page_path.read_text(encoding="utf-8")
    html = with_record(page, read_record(Path()))
    if html is None:
        raise RecordError(f"{page_path}: an older page, without a place for the record. Run 'make report'.")
    with writing(out_path) as file:
        file.write(html.encode())
    log.info("record: %s is the page with the record of this run", out_path)


def with_record(page: str, record: Record) -> str | None:
    """The page with the record between its two marks, which are in no text of a run; None where it has no marks."""
    before, start, rest = page.partition(FROM)
    _, end, after = rest.partition(TO)
    if not start or not end:
        return None
    written = page_environment(Path(__file__).parent).get_template("record.html").render(record=record)
    return f"{before}{start}\n{written}\n{end}{after}"


if __name__ == "__main__":
    main()
