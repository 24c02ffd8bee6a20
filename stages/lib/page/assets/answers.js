// One answer as elements: its facts, its thought folded, its text with the part that the verdict rests on.

const LONG = 20000; // characters; a longer answer is built when it is opened

function facts(row) {
  const {gold, solution} = row.question;
  const known = [
    ["id", row.id],
    ["arm", row.arm && !row.second ? row.arm : null],
    ["benchmark", row.benchmark],
    ["model", row.model],
    ["server", row.server],
    ["gold", gold ?? (row.kind === "preference" ? null : "–")],
    ["prediction", row.kind === "dropped" || row.kind === "preference" ? null : (row.prediction ?? "–")],
    ["verdict", row.verdict ? `${named("mark", row.verdict)}${row.by ? ` (${row.by})` : ""}` : null],
    ["lm_eval", row.lm ? named("mark", row.lm) : null],
    ["rule", row.rule ? named("mark", row.rule) : null],
    ["judge", row.judge ? named("mark", row.judge) : null],
    ["score", row.score],
    ["reason", row.reason ? named("reason", row.reason) : null],
    ["stage", row.kind === "dropped" ? row.stage : null],
    ["detail", row.detail],
    ["flags", row.flags?.map((flag) => named("flag", flag)).join(", ")],
    ["tokens", row.tokens],
    ["finish", row.finish],
    ["solution", row.kind === "student" ? null : solution],
  ];
  const shownFacts = known.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return make("dl", {}, shownFacts.map(([name, value]) => make("div", {}, make("dt", {}, t(`fact.${name}`)), make("dd", {dir: "auto"}, ...plain(shown(value))))));
}

// The thought and the text of an answer; ranges are those of differences with another answer.
function answerTexts(row, ranges = []) {
  const text = row.text ?? "";
  const span = row.span ? [{start: row.span[0], end: row.span[1], mark: "decides"}] : [];
  const all = [...span, ...ranges, ...formulasOf(row, "text")];
  const end = row.thought_end ?? 0;
  const thought = row.thought ?? text.slice(0, end);
  const inside = row.thought ? formulasOf(row, "thought") : clipped(all, 0, end);
  const parts = [];
  if (thought) {
    const summary = make("summary", {}, t("text.thought", {n: thought.length}));
    // a span or a difference inside it is not to be missed
    parts.push(make("details", {class: "thought", open: inside.some(({mark}) => mark === "decides")}, summary, make("pre", {dir: "auto", lang: glyphs(thought), tabindex: "0"}, marked(thought, inside))));
  }
  if (row.kind !== "dropped") parts.push(...block(t("text.response"), row.thought ? text : text.slice(end), row.thought ? all : clipped(all, end, text.length)));
  return parts;
}

function clipped(ranges, start, end) {
  return ranges
    .filter((range) => range.end > start && range.start < end && !(range.formula && (range.start < start || range.end > end)))
    .map((range) => ({...range, start: Math.max(range.start, start) - start, end: Math.min(range.end, end) - start}));
}

function questionTexts(row, always) {
  const {question, earlier} = row.question;
  return [...(earlier ? block(t("text.earlier"), earlier, formulasOf(row.question, "earlier")) : []), ...(always || earlier || question.length > 200 ? block(t("text.question"), question, formulasOf(row.question, "question")) : [])];
}

// A row that opens: <details> with what of it tells most in the summary. body() makes the rest.
function opening(row, body, {mark, right}) {
  const {question} = row.question;
  const start = question.length > 300 ? `${question.slice(0, 300)}…` : question;
  const summary = make("summary", {}, mark, make("span", {class: "question", dir: "auto", lang: glyphs(question)}, marked(start, formulasOf(row.question, "question", Math.min(question.length, 300)))), make("span", {class: "read", dir: "auto"}, right));
  const element = make("details", {class: "sample", "data-key": row.key, open: false}, summary);
  const fill = () => element.childElementCount > 1 || element.append(make("div", {class: "body"}, ...body()));
  element.addEventListener("toggle", () => element.open && fill());
  if ((row.text?.length ?? 0) + (row.thought?.length ?? 0) + question.length < LONG) fillLater(() => element.isConnected && fill());
  element.fill = fill;
  return element;
}

// The texts of a list that stands for a second: the browser's own search finds them in closed rows, too.
const unfilled = [];

async function fillLater(fill) {
  if (unfilled.push(fill) > 1) return;
  await pause(1000);
  while (unfilled.length) {
    await pause();
    const started = performance.now();
    while (unfilled.length && performance.now() - started < 8) unfilled.shift()();
  }
}

function tags(row) {
  return (row.flags ?? []).map((flag) => make("em", {}, named("flag", flag)));
}

function link(name, choices) {
  return make("a", {class: "permalink", href: address(name, choices)}, t("link.this"));
}
