// One box and chips over all rows. The worker of searcher.js searches the texts; chips, ranges and orders are applied here.

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
const GROUPS = Object.keys(FACETS);
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

const LATE_MS = 2000; // without a sign of life, a worker is ended

let searching = null; // the worker
let fed = 0; // rows that it has
let fedQuestions = new Set();
let busyWith = 0; // the search of its last sign of life
let watch = 0;
let searches = 0;
let isBroken = false; // this browser starts no worker
let asked = null; // the search in progress: {id, text, of, at}
let matched = {text: "", of: 0}; // the last result: {text, of, rows, error}

function startSearching() {
  const url = URL.createObjectURL(new Blob([`"use strict";\n(${searcher})();`], {type: "text/javascript"}));
  searching = new Worker(url);
  searching.onmessage = ({data}) => heard(data);
  searching.onerror = noWorker;
  URL.revokeObjectURL(url);
  [fed, fedQuestions] = [0, new Set()];
}

function noWorker() {
  isBroken = true;
  if (asked) settle({error: t("rows.no_worker")});
}

// Gives the worker the rows that it has not; in parts, between which the page answers.
async function feedSearch() {
  try {
    if (!searching) startSearching();
  } catch {
    noWorker();
  }
  if (isBroken) return;
  const worker = searching;
  while (fed < rows.length && worker === searching) {
    const some = rows.slice(fed, fed + 250);
    const fresh = [...new Set(some.map((row) => row.question))].filter(({q}) => !fedQuestions.has(q));
    for (const {q} of fresh) fedQuestions.add(q);
    fed += some.length;
    worker.postMessage({
      questions: fresh.map(({q, question, gold, earlier}) => ({q, texts: present(question, gold, earlier)})),
      rows: some.map((row) => ({q: row.question.q, texts: present(row.text, row.thought, row.second_text, row.prediction, row.id, row.detail)})),
    });
    await pause();
  }
}

const present = (...texts) => texts.filter((text) => text !== undefined && text !== "");

// The rows that match, or null while they are searched: show() is called once they are found.
function matching(text) {
  if (!text.trim()) {
    asked = null;
    return {rows};
  }
  if (matched.text === text && matched.of === rows.length) return matched;
  if (asked?.text !== text || asked.of !== rows.length) ask(text);
  return null;
}

async function ask(text) {
  const mine = {id: ++searches, text, of: rows.length, at: performance.now()};
  asked = mine;
  await feedSearch();
  if (isBroken && asked === mine) noWorker();
  else if (asked === mine) searching.postMessage({id: mine.id, query: text, of: mine.of});
}

function heard({id, searched, of, places, error}) {
  clearTimeout(watch);
  busyWith = id;
  if (searched !== undefined) watch = setTimeout(endSearch, LATE_MS, Date.now()); // not while it takes rows, which may be longer
  if (id !== asked?.id) return;
  if (searched === undefined) settle({error: error && t("rows.bad_regex", {error}), rows: places?.map((place) => rows[place])});
  else if (searched) saySearched(searched, of);
}

function settle({error, rows: found = []}) {
  const {text, of, at} = asked;
  matched = {text, of, rows: found, error};
  asked = null;
  if (view !== "rows") return;
  show();
  byId("rows-found").dataset.took = (performance.now() - at).toFixed(1);
}

// A regex that may never end is given up; a search that waits for it is asked again.
function endSearch(since) {
  if (Date.now() - since > 2 * LATE_MS) { // the computer slept
    watch = setTimeout(endSearch, LATE_MS, Date.now());
    return;
  }
  searching.terminate();
  searching = null;
  if (asked?.id === busyWith) settle({error: t("rows.too_slow", {seconds: LATE_MS / 1000})});
  if (asked) ask(asked.text);
  else feedSearch();
}

// {rows: sorted, counts: {arm: Map(base → 12, …), …}, error}. A chip's count is what choosing it would show: the rows
// that pass all other groups. null while the texts are searched.
function found(choices) {
  const searched = matching(choices.q ?? "");
  if (!searched) return null;
  const {rows: candidates, error} = searched;
  const wanted = GROUPS.map((name, place) => new Set(several(choices[name]).map((value) => NUMBERS[place].get(value))));
  const narrowing = GROUPS.map((_, place) => place).filter((place) => wanted[place].size);
  const [low, high] = [Number(choices.min || 0), Number(choices.max || Infinity)];
  const bounded = low > 0 || high < Infinity;
  const counts = NUMBERS.map(({size}) => new Int32Array(size));
  const passed = [];
  for (const row of candidates) {
    if (bounded && !(row.tokens >= low && row.tokens <= high)) continue;
    const failed = narrowing.filter((place) => !row.facets[place].some((number) => wanted[place].has(number)));
    if (failed.length > 1) continue;
    if (!failed.length) passed.push(row);
    for (let place = failed[0] ?? 0; place <= (failed[0] ?? GROUPS.length - 1); place++) {
      for (const number of row.facets[place]) counts[place][number]++;
    }
  }
  const counted = (place) => new Map([...NUMBERS[place]].map(([value, number]) => [value, counts[place][number]]).filter(([, count]) => count));
  const named = Object.fromEntries(GROUPS.map((name, place) => [name, counted(place)]));
  return {rows: sorted(passed, choices.sort ?? "order", choices.down === "1"), counts: named, error};
}

// The values of a row in each group, as numbers that NUMBERS gives them: counting them is most of a search's time.
const NUMBERS = GROUPS.map(() => new Map());

function facetsOf(row) {
  return GROUPS.map((name, place) => {
    const values = [FACETS[name](row)].flat().filter((value) => value !== undefined && value !== null);
    for (const value of values) if (!NUMBERS[place].has(value)) NUMBERS[place].set(value, NUMBERS[place].size);
    return values.map((value) => NUMBERS[place].get(value));
  });
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
