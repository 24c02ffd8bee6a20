// The rows: gzip-packed JSON in inert elements of this page, and in siblings rows-1.js, … where it had no room.
//
// A row: {kind: "student", id, arm, benchmark, language, mark, tokens, flags, text, span, …, question: {question, gold, …}}
// (stages/lib/page/rows.py). key names it in links.

const META = JSON.parse(byId("meta").textContent);
const rows = [];
const questions = [];
const trees = []; // of formulas
const byKey = new Map();

async function openRows(whenSome) {
  for (const element of document.querySelectorAll("script.rows")) {
    take(await unpack(element.textContent.trim()));
    element.remove();
    whenSome();
    await pause();
  }
}

async function unpack(base64) {
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(base64) : Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
  const opened = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(opened).text());
}

function take(entries) {
  for (const entry of entries) {
    if ("tree" in entry) {
      trees[entry.f] = entry.tree;
      continue;
    }
    if (!("kind" in entry)) {
      questions[entry.q] = entry;
      continue;
    }
    entry.question = questions[entry.q];
    entry.place = rows.length;
    entry.key = [entry.kind, entry.arm, entry.second, entry.benchmark, entry.id].filter(Boolean).join("/");
    entry.facets = facetsOf(entry);
    rows.push(entry);
    byKey.set(entry.key, entry);
  }
}

// The formulas of a row's or a question's text, as ranges of marked(), up to an end.
function formulasOf({formulas}, name, end = Infinity) {
  const found = formulas?.[name] ?? [];
  return Array.from({length: found.length / 3}, (_, at) => ({start: found[3 * at], end: found[3 * at + 1], formula: trees[found[3 * at + 2]]})).filter((range) => range.end <= end);
}

// Siblings call distilleryRows(["base64", …]) when they are loaded.
const arrived = [];
window.distilleryRows = (chunks) => arrived.push(...chunks);

async function openSiblings() {
  for (const name of META.siblings) {
    await new Promise((loaded, failed) => {
      const script = make("script", {src: name, on: {load: loaded, error: () => failed(new Error(name))}});
      document.head.append(script);
    });
    for (const chunk of arrived.splice(0)) take(await unpack(chunk));
  }
}
