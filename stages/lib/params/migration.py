"""Rewrite an older params.yaml, with every key of every choice, as tagged unions; the meaning stays the same.

    distill:                                  distill:
      teacher:                                  teacher:
        backend: embedded                         kind: embedded
        base_url: null                            model: chain-sum-solver
        model: chain-sum-solver          →        slip_share: 0.3
        …                                         …
        embedded:
          slip_share: 0.3

Keys that the chosen kind does not read are removed, with their comments. All other comments are kept.
"""

from pathlib import Path
from typing import Any

from stages.lib.params.base import ParamsError
from stages.lib.params.loading import checked, is_older, parsed
from stages.lib.params.text_tree import Document, Entry, document

BOM = "\ufeff"


def migrated(text: str, path: Path) -> str:
    """The text of an older file in the new format; ParamsError if that is not valid."""
    plain = text.removeprefix(BOM).replace("\r\n", "\n")
    try:
        tree = document(plain)
    except ValueError as error:
        raise ParamsError(f"{path}: cannot be rewritten: {error}. Write them out, then run this again.") from error
    _rearrange(tree)
    new = tree.text()
    checked(parsed(new, path), path)
    ends = "\r\n" if "\r\n" in text else "\n"
    return (BOM if text.startswith(BOM) else "") + new.replace("\n", ends)


def needs_migration(text: str, path: Path) -> bool:
    """Whether a file has the older format; ParamsError if it has neither."""
    raw = parsed(text, path)
    if is_older(raw):
        return True
    checked(raw, path)
    return False


def _rearrange(tree: Document) -> None:
    sections = {entry.key: entry for entry in tree.root.entries or ()}

    def section(*keys: str) -> Entry:
        found = sections.get(keys[0]) or Entry(keys[0], {}, entries=[])
        for key in keys[1:]:
            found = found.at(key) or Entry(key, {}, entries=[])
        return found

    _collect(section("collect"))
    _traces(tree.root)
    _distill(section("distill"))
    _model(section("distill", "teacher"))
    _filter(section("filter"))
    _model(section("filter", "judge"))
    _train(section("train"), section("run"))
    _score(tree.root, section("arms"))
    _without_nulls(section("eval_data"))
    _evaluate(section("evaluate"))
    _prefer(tree.root)
    _report(section("report"))
    _on_policy(tree.root)
    _run(section("run"), section)


def _collect(collect: Entry) -> None:
    kind = collect.at("source")
    if kind is None:
        return
    sources = {name: collect.take(name) for name in ("chain_sum", "gsm8k")}
    _group(collect, "source", {"source": "kind"}, sources.get(str(kind.value)))
    if (source := collect.at("source")) and (kind := source.at("kind")) and kind.value == "gsm8k":
        _preset_gsm8k(source)
    if not collect.at("heldout_source") and (size := collect.at("heldout_size")) and collect.entries:
        collect.put(Entry("heldout_source", None), collect.entries.index(size) + 1)
    if size := collect.at("size"):
        size.rename("train_size")
    if collect.at("keep_hard") is None:
        collect.put(Entry("keep_hard", None))
    contamination = collect.at("contamination")
    if contamination and collect.entries and not collect.at("near_duplicates"):
        collect.put(Entry("near_duplicates", None), collect.entries.index(contamination) + 1)
    if contamination and (benchmarks := contamination.at("benchmarks")):
        _without_nulls(benchmarks)
    if contamination and not contamination.at("downloaded"):
        contamination.put(Entry("downloaded", False))


def _preset_gsm8k(source: Entry) -> None:
    """GSM8K is a preset now; its official file is one of its rows."""
    kind, origin = source.at("kind"), source.at("origin")
    if kind:
        kind.set("preset")
    if origin and origin.value == "jsonl":
        origin.set("file")
    source.put(Entry("name", "gsm8k"), 1)
    source.put(Entry("where", {}))
    source.put(Entry("shuffle_seed", None))


def _traces(root: Entry) -> None:
    """s1K-1.1 is one of the traces now."""
    if not (old := root.at("collect_s1k")):
        return
    place = (root.entries or []).index(old)
    rest: dict[str, Any] = {"where": {}, "first": None, "samples_per_question": None}
    for entry in old.entries or ():
        source = Entry("source", {}, entries=entry.entries)
        for key, value, position in (("kind", "preset", 0), ("name", "s1k", 1), ("split", "train", 4)):
            source.put(Entry(key, value), position)
        entry.entries = [source, *(Entry(key, setting) for key, setting in rest.items())]
    old.rename("traces")
    root.put(Entry("filter_traces", [], above=[""]), place + 1)


def _model(model: Entry) -> None:
    """A teacher or a judge."""
    embedded = model.take("embedded")
    if not (kind := model.at("backend")):
        return
    kind.rename("kind")
    if kind.value == "embedded":
        for name in ("base_url", "temperature", "top_p", "extra_body"):
            model.take(name)
        for entry in (embedded.entries if embedded else None) or ():
            model.put(entry)


def _distill(distill: Entry) -> None:
    """No probabilities were asked for."""
    if (share := distill.at("max_failed_share")) and distill.entries and not distill.at("logprobs"):
        distill.put(Entry("logprobs", None), distill.entries.index(share) + 1)


def _score(root: Entry, arms: Entry) -> None:
    """No arm was trained on the teacher's probabilities."""
    if (train := root.at("train")) and root.entries and not root.at("score"):
        root.put(Entry("score", None, above=[""]), root.entries.index(train))
    for arm in arms.entries or ():
        if arm.at("cutoff_len") and not arm.at("alpha"):
            arm.put(Entry("alpha", 0.0))


def _filter(section: Entry) -> None:
    if section.at("strategy") and not section.at("checks"):
        section.put(Entry("checks", []))
    strategy, share = section.at("strategy"), section.at("judge_audit_share")
    if not (strategy and share):
        return
    if strategy.value == "rule" and share.value:
        strategy.set("rule_audited")
    if strategy.value in ("rule_audited", "rule_then_judge"):
        share.rename("audit_share")
    else:
        for name in ("judge_audit_share", "audit_seed", *(("judge",) if strategy.value == "rule" else ())):
            section.take(name)


def _train(train: Entry, run: Entry) -> None:
    if (student := train.at("student")) and (source := student.at("source")):
        source.rename("kind")
        if source.value in ("package", "path"):
            student.take("revision")
    openmind, lora = train.take("openmind"), train.take("lora")
    own = {name: train.take(name) for name in ("group_by_length", "packing", "save_steps", "resume")}
    if (backend := train.at("backend")) and backend.value == "openmind" and openmind:
        _checkpoints_of_openmind(openmind, run)
        _group(train, "trainer", {"backend": "kind"}, openmind)
    else:
        _group(train, "trainer", {"backend": "kind"})
        for name in ("group_by_length", "packing"):
            (train.at("trainer") or train).put(own[name])
        trainer = train.at("trainer")
        if trainer and (chosen := trainer.at("kind")) and chosen.value == "trl":
            trainer.put(Entry("fsdp2", False))
        _put_in_run(run, own["save_steps"], own["resume"])
    if (placed := train.at("system_prompt")) and train.entries:
        train.put(Entry("loss_on", "every"), train.entries.index(placed) + 1)
    kind = train.at("finetuning_type")
    _group(train, "finetuning", {"finetuning_type": "kind"}, lora if kind and kind.value == "lora" else None)


def _checkpoints_of_openmind(openmind: Entry, run: Entry) -> None:
    """Move its two checkpoint keys to ``run``, which has both; ``save_strategy: "no"`` is null there."""
    steps, overwrite = openmind.take("save_steps"), openmind.take("overwrite_output_dir")
    extra = openmind.at("extra")
    if steps and extra and isinstance(extra.value, dict) and extra.value.get("save_strategy") == "no":
        extra.take("save_strategy")
        steps.set(None)
    if overwrite:
        overwrite.set(not overwrite.value)
        overwrite.beside = ""  # the comment would now say the opposite
    _put_in_run(run, steps, overwrite)


def _put_in_run(run: Entry, steps: Entry | None, resume: Entry | None) -> None:
    for entry, key in ((steps, "checkpoint_steps"), (resume, "resume")):
        if entry:
            entry.rename(key)
            run.put(entry)


def _evaluate(evaluate: Entry) -> None:
    keys = {"backend": "kind", "batch_size": "batch_size", "dtype": "dtype", "backend_args": "args"}
    _group(evaluate, "backend", keys)
    if (limit := evaluate.at("limit")) and evaluate.entries and not evaluate.at("churn"):
        evaluate.put(Entry("churn", None), evaluate.entries.index(limit) + 1)


def _prefer(root: Entry) -> None:
    """No judge compared the arms' answers."""
    if (evaluate := root.at("evaluate")) and root.entries and not root.at("prefer"):
        root.put(Entry("prefer", None, above=[""]), root.entries.index(evaluate) + 1)


def _report(report: Entry) -> None:
    """All rows stood in the page."""
    for before, name, value in (("seed", "max_mb", 20), ("max_mb", "max_rows", 100_000)):
        if report.at(before) and not report.at(name):
            report.put(Entry(name, value))


def _on_policy(root: Entry) -> None:
    """Every arm was trained on a dataset's answers."""
    for before, name in (("arms", "on_policy"), ("on_policy", "teachers")):
        if (above := root.at(before)) and root.entries and not root.at(name):
            root.put(Entry(name, {}, above=[""] if name == "on_policy" else []), root.entries.index(above) + 1)


def _run(run: Entry, section: Any) -> None:
    """``section`` returns the teacher, the judge and evaluate.backend, already in the new format."""
    models = {"teacher": section("distill", "teacher"), "judge": section("filter", "judge")}
    kinds = {name: kind.value for name, model in models.items() if (kind := model.at("kind"))}
    if run.entries and not run.at("report_to"):
        run.put(Entry("report_to", []))
    if run.entries and not run.at("shard_rows"):
        run.put(Entry("shard_rows", 100000))
    served = {"api_key_variable": "teacher", "judge_api_key_variable": "judge"}
    for old, name in served.items():
        if kinds.get(name) != "openai_compatible":
            run.take(old)
    _group(run, "api_key_variables", served)
    _group(
        run, "embedded", {"embedded_latency_s": "latency_s", "embedded_port": "port"}, read="embedded" in kinds.values()
    )
    if (device := run.at("device")) and run.entries and not run.at("launcher"):
        run.put(Entry("launcher", {"train": None, "evaluate": None}), run.entries.index(device) + 1)
    backend = section("evaluate", "backend").at("kind")
    keys = {"served_base_url": "base_url", "served_model": "model", "served_api_key_variable": "api_key_variable"}
    _group(run, "served", keys, read=bool(backend and str(backend.value).startswith("local-")))
    prices, budget = run.at("prices"), run.at("budget")
    if prices and budget and budget.value is None and not prices.value.get("models"):
        run.take("prices")
        run.take("budget")


def _group(parent: Entry, key: str, names: dict[str, str], more: Entry | None = None, read: bool = True) -> None:
    """Move keys of a section into a new mapping at the position of the first one, with the entries of ``more``.

    ``names`` maps old to new names. Unless ``read``, the keys are removed.
    """
    if (done := parent.at(key)) and done.entries is not None:
        return
    places = [place for place, entry in enumerate(parent.entries or ()) if entry.key in names]
    taken = [entry for name in names if (entry := parent.take(name))]
    if not taken or not read:
        return
    above, taken[0].above = taken[0].above, []
    for entry in taken:
        entry.rename(names[entry.key])
    group = Entry(key, {}, above=above, entries=taken)
    if more:
        group.above, group.beside, group.column = above + more.above, more.beside, more.column
    for entry in (more.entries if more else None) or ():
        group.put(entry)
    parent.put(group, places[0])


def _without_nulls(section: Entry) -> None:
    for entry in list(section.entries or ()):
        if entry.value is None:
            section.take(entry.key)
