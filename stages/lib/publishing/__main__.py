"""Upload a dataset or a model with its cards: check, collect the files, push.

python -m stages.lib.publishing dataset filtered --to hub --repo org/name --dry-run
"""

import importlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from stages.lib.cards.content import dataset_content, model_content
from stages.lib.cards.licences import Terms
from stages.lib.cards.rendering import FILE_NAMES, dataset_card, model_card
from stages.lib.cards.run import ProjectRun, read_run
from stages.lib.command import one_line_errors, secret, without_key
from stages.lib.publishing import Kind, PublishingError, Upload
from stages.lib.publishing.checks import refuse_dirty, refuse_keys, refuse_restricted_teachers, refuse_unknown_licence
from stages.lib.publishing.secrets import known_keys

log = logging.getLogger("distillery.publishing")

CLIENTS = ("hub", "modelscope", "modelers")
FORCES = ("keys", "dirty")
MEGABYTE = 1_000_000


@click.command(help="Upload a dataset or a model with its cards to a hub, ModelScope or Modelers.")
@click.argument("kind", type=click.Choice(["dataset", "model"]))
@click.argument("name")
@click.option("--to", "client", type=click.Choice(CLIENTS), required=True, help="Where to.")
@click.option("--repo", required=True, help="The repository, org/name; made if there is none.")
@click.option("--licence", default=None, help="The licence to publish under, such as apache-2.0.")
@click.option(
    "--datasets", default="", help="For a model: the ids of its dataset on the hub, for the card; a,b for two."
)
@click.option(
    "--accept-terms", is_flag=True, help="Publish although a teacher's terms restrict training on its outputs."
)
@click.option("--force", default="", help="Overrule checks: keys, dirty, or keys,dirty.")
@click.option("--public", is_flag=True, help="Make a new repository public; an existing one stays as it is.")
@click.option("--dry-run", is_flag=True, help="Check, list the files with their sizes, and upload nothing.")
@one_line_errors
def main(
    kind: Kind,
    name: str,
    client: str,
    repo: str,
    licence: str | None,
    datasets: str,
    accept_terms: bool,
    force: str,
    public: bool,
    dry_run: bool,
) -> None:
    forced = _forced(force)
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise PublishingError(f"--repo: '{repo}' is no org/name. Write both, REPO=org/name.")
    root = Path()
    run = read_run(root)
    with staged(run, kind, name, licence, [each for each in datasets.split(",") if each]) as (folder, terms, teachers):
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        if "keys" not in forced:
            refuse_keys(files, known_keys(root, _key_variables(run)))
        refuse_unknown_licence(terms, [] if licence else teachers)
        if not accept_terms:
            refuse_restricted_teachers(teachers)
        if "dirty" not in forced:
            refuse_dirty(root, [f"convert@{name}"] if kind == "dataset" else [f"evaluate@{name}", "compare"])
        for path, file in files.items():
            click.echo(f"{file.stat().st_size / MEGABYTE:10.3f} MB  {path}")
        if dry_run:
            click.echo(f"{len(files)} files would go to {repo} ({client}); nothing was uploaded.")
            return
        state = root / ".cache" / "publishing" / f"{client}-{kind}-{name}-{repo.replace('/', '--')}.json"
        message = f"{kind} {name} of Distillery {run.commit or ''}".strip()
        token = _token(root, client)
        what = Upload(kind, repo, folder, state, terms.licence, public, message, token)
        click.echo(f"{len(files)} files: {_uploaded(client, what)}")


@contextmanager
def staged(
    run: ProjectRun, kind: Kind, name: str, licence: str | None, datasets: list[str]
) -> Iterator[tuple[Path, Terms, list[Terms]]]:
    """A folder with links to the files and with the cards, removed at the end; the licence and the teachers' terms."""
    folder = run.folder / ".cache" / "publishing" / f"{kind}-{name}.{os.getpid()}"
    if kind == "dataset":
        dataset = dataset_content(run, name, licence)
        cards = {file: dataset_card(dataset, language) for language, file in FILE_NAMES.items()}
        source, terms, teachers = run.folder / "data" / "sharegpt" / name, dataset.licence, dataset.origin.teachers
    else:
        model = model_content(run, name, licence)
        cards = {file: model_card(model, language, datasets) for language, file in FILE_NAMES.items()}
        source, terms, teachers = run.folder / "models" / name, model.licence, model.teachers
    if not source.is_dir():
        raise PublishingError(f"{source.relative_to(run.folder)}: no such folder. Run 'make repro' or 'make pull'.")
    try:
        for path in sorted(source.rglob("*")):
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(source).parts):
                link = folder / path.relative_to(source)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.resolve())  # weights are gigabytes
        for file, text in cards.items():
            (folder / file).write_text(text, encoding="utf-8")
        yield folder, terms, teachers
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _forced(force: str) -> list[str]:
    names = [name for name in force.replace(",", " ").split() if name]
    for name in names:
        if name not in FORCES:
            raise PublishingError(f"--force: '{name}' is no check that can be overruled. Known: {', '.join(FORCES)}.")
    return names


def _key_variables(run: ProjectRun) -> list[str]:
    """The variables with keys: those of params, and the hubs' own."""
    params = run.params.run
    named = list(params.api_key_variables.model_dump().values()) if params.api_key_variables else []
    if params.served:
        named.append(params.served.api_key_variable)
    for servers in params.endpoints.model_dump().values() if params.endpoints else ():
        named += [server["key_variable"] for server in servers or []]
    return [*filter(None, named), *(_module(client).TOKEN_VARIABLE for client in CLIENTS)]


def _token(root: Path, client: str) -> str:
    module = _module(client)
    variable: str = module.TOKEN_VARIABLE
    token = secret(variable, root)
    if not token:
        raise PublishingError(
            f"{variable}: not set. Make a token with write access ({module.TOKEN_PAGE}), then export it or write "
            f"'{variable}=…' into .env."
        )
    return token


def _uploaded(client: str, what: Upload) -> str:
    """The address of the repository; PublishingError, without the token, on any error of the client."""
    try:
        return str(_module(client).upload(what))
    except PublishingError:
        raise
    except Exception as error:  # each client has its own errors, and those of requests or httpx
        said = " ".join(without_key(str(error), what.token).split())
        raise PublishingError(f"{client}: {type(error).__name__}: {said:.300}. Fix that and push again.") from error


def _module(client: str) -> Any:
    return importlib.import_module(f"stages.lib.publishing.{client}")


if __name__ == "__main__":
    main()
