// The words in which two texts differ, by Myers' algorithm (An O(ND) Difference Algorithm, 1986).

const TOKEN = /\s+|[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]|(?:(?![\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}])[\p{L}\p{M}\p{N}_])+|[^\s]/gu;
const MOST_WORDS = 20000; // of a text
const MOST_EDITS = 1500; // beyond, two texts have little in common

// [ranges of a, ranges of b], each {start, end, mark: "differs"}; null where the texts are too long or too different.
function differences(a, b) {
  if (a.length + b.length > 400000) return null;
  const [first, second] = [tokens(a), tokens(b)];
  if (Math.max(first.length, second.length) > MOST_WORDS) return null;
  const [left, right] = [first.map(({text}) => text), second.map(({text}) => text)];
  let head = 0;
  while (head < left.length && head < right.length && left[head] === right[head]) head++;
  let tail = 0;
  while (tail < left.length - head && tail < right.length - head && left.at(-1 - tail) === right.at(-1 - tail)) tail++;
  const kept = common(left.slice(head, left.length - tail), right.slice(head, right.length - tail));
  if (!kept) return null;
  return [first, second].map((all, side) => {
    const same = new Set(kept.map((pair) => pair[side] + head));
    const end = all.length - tail;
    return merged(all.filter((token, place) => place >= head && place < end && !same.has(place)));
  });
}

function tokens(text) {
  return [...text.matchAll(TOKEN)].map((found) => ({text: found[0], start: found.index, end: found.index + found[0].length}));
}

function merged(apart) {
  const ranges = [];
  for (const {text, start, end} of apart) {
    if (ranges.at(-1)?.end === start) ranges.at(-1).end = end;
    else if (text.trim()) ranges.push({start, end, mark: "differs"});
  }
  return ranges;
}

// The pairs of places of a longest common subsequence.
function common(a, b) {
  const most = Math.min(a.length + b.length, MOST_EDITS);
  const steps = [];
  let reach = new Int32Array(3);
  for (let edits = 0; edits <= most; edits++) {
    const next = new Int32Array(2 * edits + 3);
    for (let diagonal = -edits; diagonal <= edits; diagonal += 2) {
      const down = diagonal === -edits || (diagonal !== edits && at(reach, edits - 1, diagonal - 1) < at(reach, edits - 1, diagonal + 1));
      let x = edits === 0 ? 0 : down ? at(reach, edits - 1, diagonal + 1) : at(reach, edits - 1, diagonal - 1) + 1;
      while (x < a.length && x - diagonal < b.length && a[x] === b[x - diagonal]) x++;
      next[diagonal + edits + 1] = x;
      if (x >= a.length && x - diagonal >= b.length) return path([...steps, next], a.length, b.length);
    }
    steps.push(next);
    reach = next;
  }
  return null;
}

const at = (reach, edits, diagonal) => (Math.abs(diagonal) > edits ? -1 : reach[diagonal + edits + 1]);

function path(steps, endA, endB) {
  const pairs = [];
  let [x, y] = [endA, endB];
  for (let edits = steps.length - 1; edits >= 0; edits--) {
    const diagonal = x - y;
    const before = edits === 0 ? null : steps[edits - 1];
    const down = edits > 0 && (diagonal === -edits || (diagonal !== edits && at(before, edits - 1, diagonal - 1) < at(before, edits - 1, diagonal + 1)));
    const from = edits === 0 ? 0 : down ? diagonal + 1 : diagonal - 1;
    const startX = edits === 0 ? 0 : at(before, edits - 1, from);
    const startY = edits === 0 ? 0 : startX - from;
    while (x > startX + (edits && !down ? 1 : 0) && y > startY + (edits && down ? 1 : 0)) pairs.push([--x, --y]);
    [x, y] = [startX, startY];
  }
  return pairs;
}
