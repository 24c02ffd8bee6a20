// The words of the page in the reader's language. t("rows.found", {n: 3}) → "3 rows".

const WORDS = JSON.parse(document.getElementById("words").textContent);
let language = document.documentElement.lang.startsWith("zh") ? "zh" : "en";
let numbers = new Intl.NumberFormat(language);
let plurals = new Intl.PluralRules(language);

function t(key, values = {}) {
  const text = WORDS[language][key] ?? WORDS.en[key];
  if (text === undefined) return key;
  const form = typeof text === "string" ? text : (text[plurals.select(values.n)] ?? text.other);
  return form.replace(/\{(\w+)\}/g, (_, name) => shown(values[name]));
}

function shown(value) {
  return typeof value === "number" ? numbers.format(value) : String(value ?? "");
}

// A name of the run's own (a reason, a flag, a stage): its word where the page has one, else itself.
function named(group, name) {
  const key = `${group}.${name}`;
  return key in WORDS.en ? t(key) : String(name).replaceAll("_", " ");
}

// As Python rounds, which wrote the tables: 6.25 to 6.2 (toFixed says 6.3).
function rounded(value, places) {
  const text = value.toFixed(places);
  const isTie = /^50*$/.test(value.toFixed(places + 25).slice(-25));
  return isTie && text.at(-1) % 2 ? (Math.floor(value * 10 ** places) / 10 ** places).toFixed(places) : text;
}

function points(share, signed = false) {
  const text = rounded(Math.abs(100 * share), 1);
  const sign = share < 0 && text !== "0.0" ? "−" : signed && text !== "0.0" ? "+" : "";
  return sign + text;
}

function pValue(p) {
  return p < 0.001 ? "< 0.001" : `= ${rounded(p, 3)}`;
}

function moment(text) {
  const when = new Date(text);
  return Number.isNaN(when.getTime()) ? String(text) : when.toLocaleString(language === "zh" ? "zh-CN" : "en");
}

// The elements of the page's skeleton, which has them in English: data-word is the text, data-word-label the aria-label.
function translate(root = document) {
  for (const element of root.querySelectorAll("[data-word]")) {
    element.textContent = t(element.dataset.word, JSON.parse(element.dataset.values || "{}"));
  }
  for (const element of root.querySelectorAll("[data-word-label]")) {
    element.setAttribute("aria-label", t(element.dataset.wordLabel, JSON.parse(element.dataset.labelValues || "{}")));
  }
  for (const element of root.querySelectorAll("[data-word-name]")) {
    element.dataset.name = t(element.dataset.wordName);
  }
  for (const element of root.querySelectorAll("[data-word-placeholder]")) {
    element.placeholder = t(element.dataset.wordPlaceholder);
  }
}

function speak(wished) {
  language = wished;
  numbers = new Intl.NumberFormat(language);
  plurals = new Intl.PluralRules(language);
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  keep("language", language);
  translate();
}

// What the browser keeps for this page; nothing where it may not.
function kept(name) {
  try {
    return localStorage.getItem(`distillery.${name}`);
  } catch {
    return null;
  }
}

function keep(name, value) {
  try {
    localStorage.setItem(`distillery.${name}`, value);
    return true;
  } catch {
    return false;
  }
}
