"""Compare MinHash with the exact comparison of all pairs: near-duplicates found and missed, and CPU time.

    DISTILLERY_DATA=../data python -m benchmarks.near_duplicates    # GSM8K's 8,792 questions, under a minute

``every pair`` computes the Jaccard similarity of each two questions. ``shared shingles`` computes only those that share
one, by an index of all shingles; it is exact too. ``MinHash`` is stages/lib/wording/near_duplicates.py: it leaves out
each question that is near to an earlier one. A ratio below 1 means that MinHash is faster.
"""

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence, Set
from pathlib import Path

import click

from benchmarks.measuring import machine, table
from stages.lib.params import NearDuplicateParams
from stages.lib.wording.near_duplicates import NearDuplicates, Sketches, shingles

SAMPLES = Path(__file__).resolve().parents[1] / "tests" / "data"
THRESHOLDS = (0.9, 0.8, 0.7, 0.6, 0.5)
EVERY_PAIR_OF = 1000  # questions: of all, every pair takes minutes
Pairs = dict[tuple[int, int], float]


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
def main() -> None:
    click.echo(f"{machine()}\n")
    texts = questions(Path(os.environ.get("DISTILLERY_DATA") or SAMPLES) / "gsm8k")
    left_out(texts[:2])  # imports datasketch
    rows = []
    for count in (EVERY_PAIR_OF, len(texts) // 2, len(texts)):
        own = texts[:count]
        minhash_s, _ = measured(left_out, own)
        exact_s, pairs = measured(sharing_pairs, own)
        every_s = measured(every_pair, own)[0] if count <= EVERY_PAIR_OF else None
        ratio = f"{minhash_s / every_s:.2f}" if every_s else "–"
        rows.append([f"{len(own):,}", f"{minhash_s:.1f}", f"{exact_s:.1f}", f"{minhash_s / exact_s:.2f}", ratio])
    click.echo(table(["questions", "MinHash, CPU s", "shared shingles, CPU s", "ratio", "ratio to every pair"], rows))
    lines = [found_and_missed(texts, pairs, threshold) for threshold in THRESHOLDS]
    click.echo("\n" + table(["threshold", "near-duplicates", "found", "missed", "found wrongly"], lines))


def questions(folder: Path) -> list[str]:
    """The questions of GSM8K's two files."""
    files = [folder / "train.jsonl", folder / "test.jsonl"]
    return [json.loads(line)["question"] for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def params(threshold: float) -> NearDuplicateParams:
    """The params of the measurement."""
    return NearDuplicateParams(ngram=5, threshold=threshold, permutations=128, seed=3)


def measured(method: Callable[[Sequence[str]], Pairs], texts: Sequence[str]) -> tuple[float, Pairs]:
    """The CPU seconds of a method, and its result."""
    started = time.process_time()
    found = method(texts)
    return time.process_time() - started, found


def every_pair(texts: Sequence[str]) -> Pairs:
    """The similarity of each two texts that share a shingle, by comparing all."""
    sets = [shingles(text, 5) for text in texts]
    found = ((i, j, jaccard(sets[i], sets[j])) for j in range(len(sets)) for i in range(j))
    return {(i, j): similarity for i, j, similarity in found if similarity}


def jaccard(first: Set[str], second: Set[str]) -> float:
    """The shared shingles divided by all shingles of the two."""
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)


def sharing_pairs(texts: Sequence[str]) -> Pairs:
    """The same, by an index of the shingles."""
    sets = [shingles(text, 5) for text in texts]
    having: dict[str, list[int]] = defaultdict(list)
    found: Pairs = {}
    for j, own in enumerate(sets):
        shared: Counter[int] = Counter()
        for shingle in own:
            shared.update(having[shingle])
            having[shingle].append(j)
        found |= {(i, j): count / (len(own) + len(sets[i]) - count) for i, count in shared.items()}
    return found


def left_out(texts: Sequence[str], threshold: float = 0.8) -> Pairs:
    """The texts that are near to an earlier one that was not left out, with that one."""
    sketches, kept, found = Sketches(params(threshold)), NearDuplicates(params(threshold)), {}
    for number, text in enumerate(texts):
        sketch = sketches(text)
        if near := kept.nearest(sketch):
            found[int(near.id), number] = near.similarity
        else:
            kept.add(str(number), sketch)
    return found


def found_and_missed(texts: Sequence[str], pairs: Pairs, threshold: float) -> list[str]:
    """What MinHash leaves out, against what an exact comparison leaves out."""
    gone: set[int] = set()
    for (i, j), similarity in sorted(pairs.items(), key=lambda item: (item[0][1], item[0][0])):
        if similarity >= threshold and i not in gone:
            gone.add(j)
    found = {j for _, j in left_out(texts, threshold)}
    numbers = (len(gone), len(gone & found), len(gone - found), len(found - gone))
    return [f"{threshold:g}", *map(str, numbers)]


if __name__ == "__main__":
    main()
