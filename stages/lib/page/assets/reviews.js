// People's verdicts on the teacher's answers, as lines of data/reviews.jsonl (stages/lib/reviews). The browser keeps
// those of this reader; those of the run and of loaded files are beside them. Of several on one answer the latest counts.

const VERDICTS = ["right", "wrong", "unsure"];
let reviews = [];
let mine = [];
let isKept = true;

function readReviews() {
  try {
    mine = JSON.parse(kept("reviews") ?? "[]").filter(isReview);
  } catch {
    mine = [];
  }
  reviews = union([...META.reviews, ...mine]);
}

function isReview(line) {
  return line !== null && typeof line === "object" && typeof line.id === "string" && VERDICTS.includes(line.verdict) && !Number.isNaN(Date.parse(line.when));
}

// Each review once, by id and time.
function union(lines) {
  const identity = ({id, verdict, when, who, comment, text_sha256}) => JSON.stringify([id, Date.parse(when), verdict, who ?? null, comment ?? null, text_sha256 ?? null]);
  const unique = [...new Map(lines.map((line) => [identity(line), line])).values()];
  return unique.sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : Date.parse(a.when) - Date.parse(b.when)));
}

// The reviews of this row's text, the latest last.
function reviewsOf(row) {
  const named = reviews.filter((review) => review.id === row.id || `${review.id}#0` === row.id);
  return named.filter((review) => !review.text_sha256 || review.text_sha256 === row.sha);
}

function review(row, verdict, comment) {
  const who = byId("who").value.trim();
  const when = new Date().toISOString().replace(/\.\d+Z$/, "+00:00");
  const line = {id: row.id, verdict, when, ...(who && {who}), ...(comment && {comment}), text_sha256: row.sha};
  // a verdict that replaces this reader's own was never in a file
  mine = [...mine.filter((one) => !(one.id === row.id && one.text_sha256 === row.sha)), line];
  keepReviews();
}

function withdraw(row) {
  mine = mine.filter((one) => !(one.id === row.id && one.text_sha256 === row.sha));
  keepReviews();
}

function keepReviews() {
  isKept = keep("reviews", JSON.stringify(mine));
  reviews = union([...META.reviews, ...loaded, ...mine]);
  countReviews();
}

let loaded = [];

async function loadReviews(file) {
  const lines = (await file.text()).replace(/^\ufeff/, "").split("\n").filter((line) => line.trim());
  const read = lines.map((line, place) => {
    let parsed = null;
    try {
      parsed = JSON.parse(line);
    } catch {
      parsed = null;
    }
    if (!isReview(parsed)) throw new Error(t("reviews.bad_line", {file: file.name, line: place + 1}));
    return parsed;
  });
  const before = reviews.length;
  loaded = [...loaded, ...read];
  reviews = union([...META.reviews, ...loaded, ...mine]);
  countReviews();
  return reviews.length - before;
}

// The whole file: the run's own lines, the loaded ones and the reader's.
function saveReviews() {
  const text = reviews.map((line) => `${JSON.stringify(line)}\n`).join("");
  const url = URL.createObjectURL(new Blob([text], {type: "application/jsonl"}));
  make("a", {href: url, download: "reviews.jsonl"}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function countReviews() {
  const text = [t("reviews.count", {n: reviews.length}), mine.length ? t("reviews.mine", {n: mine.length}) : "", isKept ? "" : t("reviews.not_kept")];
  byId("review-count").textContent = text.filter(Boolean).join(" ");
}

// The buttons and the comment at a teacher's answer; changed() is told of a new verdict.
function reviewing(row, changed) {
  const last = reviewsOf(row).at(-1);
  const comment = make("input", {type: "text", value: last?.comment ?? "", "aria-label": t("reviews.comment"), placeholder: t("reviews.comment")});
  const decide = (verdict) => {
    review(row, verdict, comment.value.trim());
    changed();
  };
  comment.addEventListener("change", () => reviewsOf(row).length && decide(reviewsOf(row).at(-1).verdict));
  const buttons = VERDICTS.map((verdict, place) =>
    make("button", {type: "button", class: `chip ${verdict}`, "aria-pressed": String(last?.verdict === verdict), on: {click: () => decide(verdict)}}, t(`mark.${verdict}`), make("kbd", {}, String(place + 1))),
  );
  const own = mine.some((one) => one.id === row.id && one.text_sha256 === row.sha);
  const undo = own ? make("button", {type: "button", class: "chip", on: {click: () => (withdraw(row), changed())}}, t("reviews.withdraw"), make("kbd", {}, "4")) : null;
  const others = reviewsOf(row).map((one) => make("li", {}, `${t(`mark.${one.verdict}`)} · ${one.who ?? t("reviews.nobody")} · ${moment(one.when)}${one.comment ? ` · ${one.comment}` : ""}`));
  return make("div", {class: "reviewing", role: "group", "aria-label": t("reviews.yours")}, make("span", {class: "soft"}, t("reviews.yours")), ...buttons, undo, comment, others.length ? make("ul", {}, ...others) : null);
}
