// Two arms against each other on the questions of one benchmark: a 2×2 table, and the questions of one of its cells.

const CELLS = ["both_right", "only_a", "only_b", "both_wrong"];
const PAGE = 50;

// {a, b, benchmark}: what is chosen, or the first pair of the comparison.
function pairChosen() {
  const scored = META.benchmarks;
  const first = META.pairs.findLast(({benchmarks}) => Object.keys(benchmarks).some((name) => scored.includes(name)));
  const a = META.arms.includes(chosen.a) ? chosen.a : (first?.first ?? META.arms.at(-1));
  const other = a === first?.first ? first.second : META.arms.find((arm) => arm !== a);
  const b = META.arms.includes(chosen.b) ? chosen.b : (other ?? a);
  return {a, b, benchmark: scored.includes(chosen.benchmark) ? chosen.benchmark : scored[0]};
}

// The questions that both arms answered, by cell: {only_a: [[rowA, rowB], …], …}.
function flips(a, b, benchmark) {
  const cells = Object.fromEntries(CELLS.map((cell) => [cell, []]));
  for (const row of rows) {
    if (row.kind !== "student" || row.arm !== a || row.benchmark !== benchmark) continue;
    const other = byKey.get(["student", b, benchmark, row.id].join("/"));
    if (!other) continue;
    const cell = row.correct ? (other.correct ? "both_right" : "only_a") : other.correct ? "only_b" : "both_wrong";
    cells[cell].push([row, other]);
  }
  return cells;
}

function showFlips() {
  const view = byId("flips-view");
  const pair = pairChosen();
  if (!pair.benchmark || META.arms.length < 2) {
    byId("flips-table").replaceChildren(make("p", {class: "none"}, t("flips.nothing")));
    return;
  }
  fillSelect(byId("flips-a"), META.arms, pair.a);
  fillSelect(byId("flips-b"), META.arms, pair.b);
  fillSelect(byId("flips-benchmark"), META.benchmarks, pair.benchmark);
  const cells = flips(pair.a, pair.b, pair.benchmark);
  const cell = CELLS.includes(chosen.cell) ? chosen.cell : "only_a";
  byId("flips-table").replaceChildren(crossTable(cells, cell, pair), ...comparedInWords(pair, cells));
  listFlips(cells[cell], cell, pair);
  view.dataset.ready = "true";
}

function fillSelect(select, names, value) {
  select.replaceChildren(...names.map((name) => make("option", {value: name}, ...plain(name))));
  select.value = value;
}

function crossTable(cells, cell, {a, b}) {
  const button = (name) =>
    make("td", {}, make("button", {type: "button", class: `cell ${name}`, "aria-pressed": String(name === cell), on: {click: () => choose({cell: name, open: "", page: ""})}}, make("b", {}, numbers.format(cells[name].length)), make("small", {}, t(`flips.${name}`, {a, b})), make("kbd", {}, String(CELLS.indexOf(name) + 1))));
  const head = (arm, word, scope) => make("th", {scope}, swatch(arm), t(word, {arm}));
  return make(
    "table",
    {class: "cross"},
    make("caption", {class: "soft"}, t("flips.caption")),
    make("thead", {}, make("tr", {}, make("td", {}), head(b, "flips.is_right", "col"), head(b, "flips.is_wrong", "col"))),
    make("tbody", {}, make("tr", {}, head(a, "flips.is_right", "row"), button("both_right"), button("only_a")), make("tr", {}, head(a, "flips.is_wrong", "row"), button("only_b"), button("both_wrong"))),
  );
}

// What the comparison says of this pair, turned round where it has the arms in the other order.
function comparedInWords({a, b, benchmark}, cells) {
  const n = CELLS.reduce((sum, cell) => sum + cells[cell].length, 0);
  const found = META.pairs.find(({first, second}) => [first, second].sort().join("\n") === [a, b].sort().join("\n"))?.benchmarks[benchmark];
  const turned = META.pairs.some(({first, second}) => first === b && second === a);
  const parts = [make("p", {class: "note"}, t("flips.unsure_counts", {n}))];
  if (META.inside < META.total && rows.length < META.total) parts.unshift(make("p", {class: "warning"}, t("flips.incomplete")));
  if (!found) return parts;
  const [low, high] = turned ? [-found.high, -found.low] : [found.low, found.high];
  const values = {a, b, benchmark, difference: points(turned ? -found.difference : found.difference, true), low: points(low, true), high: points(high, true), p: pValue(found.p), discordant: found.only_first + found.only_second};
  return [make("p", {}, t("flips.compared", values)), ...parts];
}

function listFlips(pairs, cell, {a, b, benchmark}) {
  const pages = Math.max(1, Math.ceil(pairs.length / PAGE));
  const opened = pairs.findIndex(([row]) => row.id === chosen.open);
  const page = opened >= 0 ? Math.floor(opened / PAGE) : Math.min(Math.max(1, Number(chosen.page) || 1), pages) - 1;
  byId("flips-found").textContent = `${t(`flips.${cell}`, {a, b})}: ${t("flips.questions", {n: pairs.length})}`;
  byId("flips-list").replaceChildren(...pairs.slice(page * PAGE, (page + 1) * PAGE).map(([row, other]) => flipRow(row, other)));
  byId("flips-pager").replaceChildren(...pager(page, pages));
  openChosen(byId("flips-list"), (element) => element.dataset.id === chosen.open);
}

function flipRow(row, other) {
  const choices = {...pairChosen(), cell: chosen.cell ?? "only_a", open: row.id};
  const body = () => {
    const apart = differences(row.text, other.text);
    const note = apart ? null : make("p", {class: "note"}, t("flips.too_different"));
    const side = (each, ranges) => make("div", {class: "side", style: {"--c": colourOf(each.arm)}}, make("h3", {}, symbol(each.mark), swatch(each.arm), ...plain(each.arm)), sideFacts(each), ...answerTexts(each, ranges));
    return [make("dl", {}, make("div", {}, make("dt", {}, t("fact.id")), make("dd", {}, row.id)), make("div", {}, make("dt", {}, t("fact.gold")), make("dd", {dir: "auto"}, ...plain(row.question.gold ?? "–")))), ...questionTexts(row), note, make("div", {class: "sides"}, side(row, apart?.[0]), side(other, apart?.[1])), link("flips", choices)];
  };
  const right = [...plain(row.prediction ?? "–"), " · ", ...plain(other.prediction ?? "–"), row.question.gold === undefined ? "" : make("b", {}, ` (${t("fact.gold")} `, ...plain(row.question.gold), ")")];
  const element = opening(row, body, {mark: make("span", {class: "marks"}, symbol(row.mark), symbol(other.mark)), right});
  element.dataset.id = row.id;
  return element;
}

function sideFacts(row) {
  const facts = [
    ["prediction", row.prediction ?? "–"],
    ["verifier", row.verdict ? named("mark", row.verdict) : "–"],
    ["lm_eval", row.lm ? named("mark", row.lm) : "–"],
    ["by", row.by],
    ["tokens", row.tokens],
    ["flags", row.flags?.map((flag) => named("flag", flag)).join(", ")],
  ];
  return make("dl", {}, ...facts.filter(([, value]) => value !== undefined).map(([name, value]) => make("div", {}, make("dt", {}, t(`fact.${name}`)), make("dd", {dir: "auto"}, ...plain(shown(value))))));
}
