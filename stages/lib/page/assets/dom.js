// Elements from text alone: nothing here, and nothing in this page, reads HTML from a string.

const byId = (id) => document.getElementById(id);

// make("button", {class: "chip", on: {click: f}}, "text", element, null)
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (name === "style") for (const [property, set] of Object.entries(value)) element.style.setProperty(property, set);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) element.append(child); // all at once are too many arguments
  return element;
}

// Characters that reorder or hide text are shown by their number: they may make a text look like another one.
const HIDDEN = /[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g;

function plain(text) {
  if (text.search(HIDDEN) < 0) return [text];
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(HIDDEN)) {
    const number = found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    parts.push(text.slice(at, found.index), make("span", {class: "hidden-character", title: t("text.hidden")}, `U+${number}`));
    at = found.index + 1;
    if (parts.length > 4000) break; // of a hostile text; the rest stays as it is
  }
  return [...parts, text.slice(at)];
}

// A text with ranges marked: [{start, end, mark: "span"}, …]; ranges may overlap. A range with a formula stands for it whole.
function marked(text, ranges = []) {
  const inside = ranges.filter(({start, end}) => start < end).sort((a, b) => a.start - b.start);
  const formulas = inside.filter(({formula, end}) => formula && end <= text.length);
  const ordered = inside.filter(({mark}) => mark);
  const edges = outside([...new Set([0, text.length, ...inside.flatMap(({start, end}) => [start, Math.min(end, text.length)])])].sort((a, b) => a - b), formulas);
  const parts = [];
  let next = 0;
  let drawn = 0;
  let open = [];
  for (let place = 0; place + 1 < edges.length; place++) {
    const [from, to] = [edges[place], edges[place + 1]];
    open = open.filter(({end}) => end > from);
    while (next < ordered.length && ordered[next].start < to) open.push(ordered[next++]);
    const names = [...new Set(open.map(({mark}) => mark))];
    const source = text.slice(from, to);
    const piece = formulas[drawn]?.start === from ? [formulaOrSource(formulas[drawn++].formula, source)] : plain(source);
    parts.push(...(names.length ? [make("mark", {class: names.join(" ")}, ...piece)] : piece));
  }
  return parts;
}

// The edges that are inside no formula.
function outside(edges, formulas) {
  let at = 0;
  return edges.filter((edge) => {
    while (at < formulas.length && formulas[at].end <= edge) at++;
    return !(at < formulas.length && formulas[at].start < edge);
  });
}

// A formula as the reader wants it: drawn, or its source.
function formulaOrSource(tree, source) {
  const math = formulaElement(tree, source);
  return kept("latex") ? sourceOf(math) : math;
}

function sourceOf(math) {
  const element = make("span", {class: "latex"}, math.getAttribute("title"));
  element.math = math;
  return element;
}

// Puts the source in the place of every formula, or the other way round; what is open or being typed stays.
function swapFormulas() {
  if (kept("latex")) for (const math of document.querySelectorAll("math[title]")) math.replaceWith(sourceOf(math));
  else for (const element of document.querySelectorAll("span.latex")) element.replaceWith(element.math);
}

// What is copied has the source of formulas.
function copyFormulas(event) {
  const selection = getSelection();
  if (!selection.rangeCount || selection.isCollapsed || event.target.closest?.("input, textarea")) return;
  const part = selection.getRangeAt(0).cloneContents();
  const formulas = part.querySelectorAll("math[title]");
  if (!formulas.length) return;
  for (const math of formulas) math.replaceWith(math.getAttribute("title"));
  const holder = make("div", {class: "copied"}, part);
  document.body.append(holder); // innerText needs a layout for the lines
  event.clipboardData.setData("text/plain", holder.innerText);
  holder.remove();
  event.preventDefault();
}

// MathML from ["mfrac", {attribute: …}, child, …]; a child is a text or an element.
function formulaElement([name, ...parts], title) {
  const element = document.createElementNS("http://www.w3.org/1998/Math/MathML", name);
  for (const part of parts) {
    if (Array.isArray(part)) element.append(formulaElement(part));
    else if (typeof part === "string") element.append(part);
    else for (const [attribute, value] of Object.entries(part)) element.setAttribute(attribute, value);
  }
  if (title) element.setAttribute("title", title);
  return element;
}

function glyphs(text) {
  const start = text.slice(0, 2000);
  return /[\u3040-\u30ff]/.test(start) ? "ja" : /[\u4e00-\u9fff]/.test(start) ? "zh-Hans" : "en";
}

function block(title, text, ranges = []) {
  const attributes = {dir: "auto", lang: glyphs(text), tabindex: "0"};
  return [make("p", {class: "title"}, title), make("pre", attributes, marked(text, ranges))];
}

function swatch(arm) {
  return make("i", {class: "swatch", style: {"--c": colourOf(arm)}});
}

function colourOf(arm) {
  const place = META.arms.indexOf(arm);
  return place > 0 ? `var(--arm-${((place - 1) % 6) + 1})` : "var(--arm-0)";
}

// The symbol tells as much as the colour.
function symbol(mark) {
  const sign = {right: "✓", wrong: "✗", unsure: "?"}[mark] ?? "·";
  return make("span", {class: `mark ${mark ?? ""}`, role: "img", "aria-label": t(`mark.${mark ?? "none"}`)}, sign);
}

// Waits until the browser has drawn and read the keyboard.
const pause = (ms = 0) => new Promise((resume) => setTimeout(resume, ms));
