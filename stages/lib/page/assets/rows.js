// All rows: one text box, chips with counts, ranges of tokens, an order, pages of real elements.

const SHOWN_FACETS = ["kind", "arm", "benchmark", "language", "mark", "flag", "reason", "stage"];

function showRows() {
  setValue(byId("search"), chosen.q ?? "");
  setValue(byId("tokens-min"), chosen.min ?? "");
  setValue(byId("tokens-max"), chosen.max ?? "");
  const result = found(chosen);
  byId("rows-list").setAttribute("aria-busy", String(!result));
  if (!result) return; // the last result stays until then
  byId("search-error").textContent = result.error ?? "";
  byId("search").setAttribute("aria-invalid", String(Boolean(result.error)));
  showChips(result.counts);
  fillSort();
  const pages = Math.max(1, Math.ceil(result.rows.length / PAGE));
  const opened = chosen.open ? result.rows.findIndex((row) => row.key === chosen.open) : -1;
  const page = opened >= 0 && !chosen.page ? Math.floor(opened / PAGE) : Math.min(Math.max(1, Number(chosen.page) || 1), pages) - 1;
  byId("rows-found").textContent = result.error ? "" : t("rows.found", {n: result.rows.length, of: rows.length});
  byId("rows-list").replaceChildren(...result.rows.slice(page * PAGE, (page + 1) * PAGE).map(rowElement));
  if (!result.rows.length && !result.error) byId("rows-list").append(make("p", {class: "none"}, t("rows.none")));
  byId("rows-pager").replaceChildren(...pager(page, pages));
  openChosen(byId("rows-list"), (element) => element.dataset.key === chosen.open);
}

function saySearched(searched, of) {
  if (view === "rows") byId("rows-found").textContent = t("rows.searching", {n: searched, of});
}

function setValue(input, value) {
  if (input.value !== value && document.activeElement !== input) input.value = value;
}

function showChips(counts) {
  const groups = SHOWN_FACETS.map((name) => {
    const wanted = several(chosen[name]);
    const values = [...new Set([...counts[name].keys(), ...wanted])];
    if (values.length < 2 && !wanted.length) return null;
    values.sort((a, b) => order(name, a) - order(name, b) || (counts[name].get(b) ?? 0) - (counts[name].get(a) ?? 0));
    const chips = values.map((value) => {
      const pressed = wanted.includes(value);
      const toggle = () => choose({[name]: joined(pressed ? wanted.filter((one) => one !== value) : [...wanted, value]), page: "", open: ""});
      const label = ["kind", "mark", "flag", "reason"].includes(name) ? named(name, value) : value;
      return make("button", {type: "button", class: "chip", "aria-pressed": String(pressed), "data-chip": `${name}:${value}`, on: {click: toggle}}, name === "arm" ? swatch(value) : null, ...plain(label), make("span", {class: "count"}, numbers.format(counts[name].get(value) ?? 0)));
    });
    return make("div", {class: "chips", role: "group", "aria-label": t(`facet.${name}`)}, make("span", {class: "soft"}, t(`facet.${name}`)), ...chips);
  });
  const focused = document.activeElement?.dataset?.chip;
  byId("chips").replaceChildren(...groups.filter(Boolean));
  if (focused) [...byId("chips").querySelectorAll("button")].find((one) => one.dataset.chip === focused)?.focus();
  byId("clear").hidden = !Object.keys(chosen).some((name) => SHOWN_FACETS.includes(name) || ["q", "min", "max"].includes(name));
}

const ORDERS = {kind: ["student", "kept", "rejected", "dropped", "preference"], mark: ["right", "wrong", "unsure"]};

function order(name, value) {
  const known = name === "arm" ? META.arms : (ORDERS[name] ?? []);
  const place = known.indexOf(value);
  return place < 0 ? known.length : place;
}

function fillSort() {
  const select = byId("sort");
  select.replaceChildren(...Object.keys(SORTS).map((name) => make("option", {value: name}, t(`sort.${name}`))));
  select.value = chosen.sort in SORTS ? chosen.sort : "order";
  byId("down").setAttribute("aria-pressed", String(chosen.down === "1"));
}

function rowElement(row) {
  const right = [...tags(row), ...where(row), ...readOf(row)];
  const last = row.sha ? reviewsOf(row).at(-1) : null;
  if (last) right.unshift(make("em", {class: "reviewed"}, t("reviews.says", {verdict: t(`mark.${last.verdict}`)})));
  const body = () => [
    facts(row),
    ...questionTexts(row),
    ...(row.kind === "preference" ? preferenceTexts(row) : answerTexts(row)),
    row.sha ? reviewing(row, () => renew(row)) : null,
    link("rows", {open: row.key}),
  ];
  return opening(row, body, {mark: symbol(row.kind === "preference" || row.kind === "dropped" ? null : row.mark), right});
}

function where(row) {
  if (row.kind === "student") return [swatch(row.arm), ...plain(row.arm), META.benchmarks.length + META.unscored.length > 1 ? ` · ${row.benchmark}` : "", " · "];
  if (row.kind === "preference") return [...plain(`${row.arm} / ${row.second}`), " · "];
  return [named("kind", row.kind), row.reason ? `: ${named("reason", row.reason)}` : "", " · "];
}

function readOf(row) {
  if (row.kind === "dropped") return [row.stage];
  if (row.kind === "preference") return [t(`outcome.${row.outcome}`, {first: row.arm, second: row.second})];
  if (row.score !== undefined) return [`${t("fact.score")} ${shown(row.score)}`];
  const gold = row.question.gold;
  const same = row.mark === "right" && row.prediction === gold;
  const parts = row.prediction === undefined ? [gold === undefined ? `${shown(row.tokens)} ${t("fact.tokens")}` : "–"] : [make("b", {class: row.mark === "wrong" ? "wrong" : ""}, ...plain(row.prediction))];
  return gold === undefined || same ? parts : [...parts, ` (${t("fact.gold")} `, ...plain(gold), ")"];
}

function preferenceTexts(row) {
  const apart = differences(row.text, row.second_text);
  const side = (arm, text, ranges) => make("div", {class: "side", style: {"--c": colourOf(arm)}}, make("h3", {}, swatch(arm), ...plain(arm)), ...block(t("text.response"), text, ranges));
  const said = row.verdicts.map((verdict) => t(`outcome.${verdict}`, {first: row.arm, second: row.second}));
  return [make("p", {class: "note"}, t("outcome.orders", {first: row.arm, second: row.second, one: said[0], two: said[1]})), make("div", {class: "sides"}, side(row.arm, row.text, [...(apart?.[0] ?? []), ...formulasOf(row, "text")]), side(row.second, row.second_text, [...(apart?.[1] ?? []), ...formulasOf(row, "second_text")]))];
}

// After a verdict: the row's element made anew, open and with the focus as before.
function renew(row) {
  const old = [...byId("rows-list").children].find((element) => element.dataset.key === row.key);
  if (!old) return;
  const pressed = [...old.querySelectorAll("button")].indexOf(document.activeElement);
  const inSummary = document.activeElement === old.firstElementChild;
  const fresh = rowElement(row);
  fresh.fill();
  fresh.open = old.open;
  old.replaceWith(fresh);
  if (pressed >= 0) (fresh.querySelectorAll("button")[pressed] ?? fresh.querySelector("summary")).focus();
  else if (inSummary) fresh.querySelector("summary").focus();
}

function pager(page, pages) {
  if (pages < 2) return [];
  const button = (word, to) => make("button", {type: "button", class: "chip", disabled: to < 0 || to >= pages, on: {click: () => (choose({page: String(to + 1), open: ""}), scrollTo({top: 0}))}}, t(word));
  return [button("pager.first", page ? 0 : -1), button("pager.previous", page - 1), make("span", {}, t("pager.page", {page: page + 1, pages})), button("pager.next", page + 1), button("pager.last", page + 1 < pages ? pages - 1 : -1)];
}

function openChosen(list, is) {
  if (!chosen.open) return;
  const element = [...list.children].find(is);
  if (!element || element.open) return;
  element.fill();
  element.open = true;
  element.querySelector("summary").focus({preventScroll: true});
  element.scrollIntoView({block: "start"});
}
