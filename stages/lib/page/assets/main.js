// Starting, moving between the views, keys.

const SHOW = {report: () => {}, flips: showFlips, rows: showRows};

show = () => {
  showView();
  for (const anchor of document.querySelectorAll("#views a")) {
    if (anchor.dataset.view === view) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  SHOW[view]();
};

function showView() {
  for (const name of VIEWS) byId(`${name}-view`).hidden = name !== view;
  byId("explorer").hidden = view === "report";
  byId("formulas").hidden = !trees.length && !document.querySelector("math[title], span.latex");
}

function arriveAtHash() {
  const name = readHash();
  show();
  if (view === "report" && name) document.getElementById(name)?.scrollIntoView();
}

// Filters while it is typed, a step in the history once it is done.
let typing = 0;
function onType(id, name) {
  byId(id).addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => choose({[name]: byId(id).value, page: "", open: ""}, true), 60);
  });
}

function listen() {
  addEventListener("hashchange", arriveAtHash);
  onType("search", "q");
  onType("tokens-min", "min");
  onType("tokens-max", "max");
  byId("sort").addEventListener("change", (event) => choose({sort: event.target.value, page: ""}));
  byId("down").addEventListener("click", () => choose({down: chosen.down === "1" ? "" : "1", page: ""}));
  byId("clear").addEventListener("click", () => {
    for (const id of ["search", "tokens-min", "tokens-max"]) byId(id).value = "";
    go("rows");
  });
  for (const name of ["a", "b", "benchmark"]) {
    byId(`flips-${name}`).addEventListener("change", (event) => choose({...pairChosen(), [name]: event.target.value, open: "", page: ""}));
  }
  byId("flips-swap").addEventListener("click", () => {
    const {a, b, benchmark} = pairChosen();
    const turned = {only_a: "only_b", only_b: "only_a"};
    choose({a: b, b: a, benchmark, cell: turned[chosen.cell ?? "only_a"] ?? chosen.cell, page: ""});
  });
  byId("reviews-save").addEventListener("click", saveReviews);
  byId("reviews-load").addEventListener("change", async (event) => {
    try {
      let added = 0;
      for (const file of event.target.files) added += await loadReviews(file);
      say(t("reviews.loaded", {n: added}));
    } catch (error) {
      say(error.message);
    }
    event.target.value = "";
    show();
  });
  setValue(byId("who"), kept("who") ?? "");
  byId("who").addEventListener("change", () => keep("who", byId("who").value.trim()));
  byId("language").addEventListener("click", () => {
    speak(language === "en" ? "zh" : "en");
    countReviews();
    showTheme();
    sayWhatIsOpen();
    redrawCharts();
    show();
  });
  byId("theme").addEventListener("click", () => {
    const dark = isDark();
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    keep("theme", document.documentElement.dataset.theme);
    showTheme();
    redrawCharts();
  });
  byId("formulas").addEventListener("click", () => {
    keep("latex", kept("latex") ? "" : "1");
    showLatex();
  });
  addEventListener("copy", copyFormulas);
  byId("siblings")?.addEventListener("click", openRest);
  byId("keys-close").addEventListener("click", () => byId("keys").close());
  byId("keys-open").addEventListener("click", () => byId("keys").showModal());
  addEventListener("keydown", onKey);
}

const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function showTheme() {
  byId("theme").textContent = t(isDark() ? "theme.light" : "theme.dark");
}

function showLatex() {
  byId("formulas").setAttribute("aria-pressed", String(Boolean(kept("latex"))));
  swapFormulas();
}

function say(text) {
  byId("status").textContent = text;
}

function sayWhatIsOpen() {
  if (rows.length < META.total) say(t("status.partly", {n: rows.length, of: META.total, files: META.siblings.join(", ")}));
  else say("");
}

async function openRest() {
  byId("siblings").disabled = true;
  try {
    await openSiblings();
    byId("siblings").hidden = true;
    sayWhatIsOpen();
    feedSearch();
  } catch (error) {
    say(t("status.no_sibling", {file: error.message}));
    byId("siblings").disabled = false;
  }
  show();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  const isTyping = event.target.matches("input:not([type=file]), select, textarea");
  if (event.key === "Escape") return escape(isTyping, event);
  if (isTyping) return;
  const act = {j: () => step(1), k: () => step(-1), "/": openSearch, "?": () => byId("keys").showModal()}[event.key];
  if (act) act();
  else if (/^[1-4]$/.test(event.key) && view !== "report") number(Number(event.key));
  else return;
  event.preventDefault();
}

function openSearch() {
  if (view !== "rows") go("rows");
  byId("search").focus();
  byId("search").select();
}

function escape(isTyping, event) {
  const open = event.target.closest?.("details.sample[open]");
  if (isTyping && !open) event.target.blur();
  else if (open) {
    open.open = false;
    open.querySelector("summary").focus();
    if (chosen.open) choose({open: ""}, true);
  } else if (view !== "report") go("report");
}

const list = () => byId(view === "flips" ? "flips-list" : "rows-list");

function step(by) {
  if (view === "report") return;
  const summaries = [...list().querySelectorAll(":scope > details > summary")];
  const current = summaries.findIndex((summary) => summary.parentElement.contains(document.activeElement));
  const next = summaries[current < 0 ? (by > 0 ? 0 : summaries.length - 1) : current + by];
  next?.focus();
  next?.scrollIntoView({block: "nearest"});
}

// 1-4: the cells of the 2×2 table, or a verdict on the answer that has the focus.
function number(place) {
  if (view === "flips") return choose({cell: CELLS[place - 1], open: "", page: ""});
  const element = document.activeElement?.closest("details.sample");
  const row = element && byKey.get(element.dataset.key);
  if (!row?.sha) return;
  if (place < 4) review(row, VERDICTS[place - 1], reviewsOf(row).at(-1)?.comment);
  else withdraw(row);
  renew(row);
}

async function start() {
  translate();
  showTheme();
  showLatex();
  readReviews();
  countReviews();
  listen();
  readHash();
  showView();
  await openRows(() => say(t("status.opening", {n: rows.length, of: META.total})));
  sayWhatIsOpen();
  arriveAtHash();
  drawCharts();
  document.documentElement.dataset.ready = "true";
  feedSearch();
}

start();
