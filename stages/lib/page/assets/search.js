// One box and chips over all rows. A query is words, all of which must occur ("a phrase" is one word), or /a regex/i.

const FACETS = {
  kind: (row) => row.kind,
  arm: (row) => [row.arm, row.second],
  benchmark: (row) => row.benchmark,
  language: (row) => row.language,
  mark: (row) => row.mark,
  flag: (row) => row.flags,
  reason: (row) => row.reason,
  stage: (row) => row.stage,
};
const SORTS = {
  order: (row) => row.place,
  tokens: (row) => row.tokens,
  id: (row) => row.id,
  kind: (row) => row.kind,
  arm: (row) => row.arm,
  benchmark: (row) => row.benchmark,
  language: (row) => row.language,
  mark: (row) => row.mark,
  reason: (row) => row.reason,
  flag: (row) => row.flags?.[0],
};

// {test: row → bool} or {error}; an empty query matches all.
function query(text) {
  const pattern = /^\/(.+)\/([imsu]*)$/s.exec(text.trim());
  if (pattern) {
    try {
      const regex = new RegExp(pattern[1], pattern[2]);
      return {test: (row) => texts(row).some((each) => regex.test(each))};
    } catch (error) {
      return {error: error.message};
    }
  }
  const words = [...text.toLowerCase().matchAll(/"([^"]+)"|(\S+)/g)].map((found) => found[1] ?? found[2]);
  return {test: (row) => words.every((word) => row.find.includes(word) || row.question.find.includes(word))};
}

function texts(row) {
  const {question, gold, earlier} = row.question;
  return [question, gold, earlier, row.text, row.thought, row.second_text, row.prediction, row.id, row.detail].filter((text) => text !== undefined);
}

let matched = {text: null, of: 0, rows: []};

function matching(text) {
  if (matched.text !== text || matched.of !== rows.length) {
    const asked = query(text);
    matched = {text, of: rows.length, error: asked.error, rows: asked.error ? [] : text.trim() ? rows.filter(asked.test) : rows};
  }
  return matched;
}

// {rows: sorted, counts: {arm: Map(base → 12, …), …}, error}. A chip's count is what choosing it would show: the rows
// that pass all other groups.
function found(choices) {
  const {rows: candidates, error} = matching(choices.q ?? "");
  const wanted = Object.fromEntries(Object.keys(FACETS).map((name) => [name, new Set(several(choices[name]))]));
  const [low, high] = [Number(choices.min || 0), Number(choices.max || Infinity)];
  const bounded = low > 0 || high < Infinity;
  const counts = Object.fromEntries(Object.keys(FACETS).map((name) => [name, new Map()]));
  const passed = [];
  for (const row of candidates) {
    if (bounded && !(row.tokens >= low && row.tokens <= high)) continue;
    const values = {};
    const failed = [];
    for (const [name, of] of Object.entries(FACETS)) {
      values[name] = [of(row)].flat().filter((value) => value !== undefined && value !== null);
      if (wanted[name].size && !values[name].some((value) => wanted[name].has(value))) failed.push(name);
      if (failed.length > 1) break;
    }
    if (!failed.length) passed.push(row);
    if (failed.length > 1) continue;
    for (const name of failed.length ? failed : Object.keys(FACETS)) {
      for (const value of values[name] ?? []) counts[name].set(value, (counts[name].get(value) ?? 0) + 1);
    }
  }
  return {rows: sorted(passed, choices.sort ?? "order", choices.down === "1"), counts, error};
}

function sorted(passed, name, down) {
  const of = SORTS[name] ?? SORTS.order;
  if (name === "order" && !down) return passed;
  const compare = new Intl.Collator(undefined, {numeric: true}).compare;
  const keyed = passed.map((row) => [of(row), row]);
  keyed.sort(([a, first], [b, second]) => {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined) || first.place - second.place;
    const order = typeof a === "number" ? a - b : a === b ? 0 : compare(a, b);
    return (down ? -order : order) || first.place - second.place;
  });
  return keyed.map(([, row]) => row);
}
