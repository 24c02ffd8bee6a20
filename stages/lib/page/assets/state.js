// The view and its choices, in location.hash: #flips?a=filtered&b=base&benchmark=gsm8k&cell=only_a&open=gsm8k-7.
// Any other hash is a place in the report.

const VIEWS = ["report", "flips", "rows"];
let view = "report";
let chosen = {};
let show = () => {};

function readHash() {
  const [name, query = ""] = location.hash.slice(1).split(/\?(.*)/s);
  view = VIEWS.includes(name) ? name : "report";
  chosen = Object.fromEntries(new URLSearchParams(view === "report" ? "" : query));
  return name;
}

function address(name, choices) {
  const query = new URLSearchParams(Object.entries(choices).filter(([, value]) => value)).toString();
  return `#${name}${query ? `?${query}` : ""}`;
}

// Another choice in this view; typing and moving replace the entry of the browser's history, a step adds one.
function choose(changes, replace = false) {
  chosen = Object.fromEntries(Object.entries({...chosen, ...changes}).filter(([, value]) => value));
  remember(replace);
  show();
}

function remember(replace) {
  const to = address(view, chosen);
  if (to === location.hash) return;
  history[replace ? "replaceState" : "pushState"](null, "", to);
}

function go(name, choices = {}) {
  view = name;
  chosen = choices;
  remember(false);
  show();
}

// A choice of several values is "a,b" in the hash; a comma in a name is written %2C.
const several = (text) => (text ? text.split(",").map(decodeURIComponent) : []);
const joined = (values) => values.map((value) => encodeURIComponent(value)).join(",");
