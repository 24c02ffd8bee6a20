"""Write the cards of all datasets and arms, or of one.

python -m stages.lib.cards                  # all, to cards
python -m stages.lib.cards --arm filtered   # cards/model-filtered.md and model-filtered.zh.md
"""

from collections.abc import Iterator
from pathlib import Path

import click

from stages.lib.cards.content import dataset_content, model_content
from stages.lib.cards.rendering import Language, dataset_card, model_card
from stages.lib.cards.run import ProjectRun, read_run
from stages.lib.command import WRITE, one_line_errors
from stages.lib.rows import writing

SUFFIXES: dict[Language, str] = {"en": ".md", "zh": ".zh.md"}


@click.command(help="Write the cards of the datasets and models, in English and Chinese, from the committed run.")
@click.option("--dataset", default=None, help="Only the card of this dataset.")
@click.option("--arm", default=None, help="Only the card of this arm's model.")
@click.option(
    "--licence", default=None, help="The licence to publish under, where another one is wanted or none known."
)
@click.option("--out", type=WRITE, default=Path("cards"), show_default=True, help="The folder, written.")
@one_line_errors
def main(dataset: str | None, arm: str | None, licence: str | None, out: Path) -> None:
    run = read_run(Path())
    datasets = [dataset] if dataset else [] if arm else list(run.params.datasets)
    arms = [arm] if arm else [] if dataset else list(run.params.trained_arms)
    for name, text in cards(run, datasets, arms, licence):
        with writing(out / name) as file:
            file.write(text.encode())
        click.echo(out / name)


def cards(run: ProjectRun, datasets: list[str], arms: list[str], licence: str | None) -> Iterator[tuple[str, str]]:
    """The name of each card's file, and its text."""
    for name in datasets:
        dataset = dataset_content(run, name, licence)
        yield from ((f"dataset-{name}{suffix}", dataset_card(dataset, each)) for each, suffix in SUFFIXES.items())
    for name in arms:
        model = model_content(run, name, licence)
        yield from ((f"model-{name}{suffix}", model_card(model, each, [])) for each, suffix in SUFFIXES.items())


if __name__ == "__main__":
    main()
