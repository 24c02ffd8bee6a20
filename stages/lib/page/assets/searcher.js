// The search, as the text of a worker of its own: a regex that backtracks without end blocks no page, and can be ended.
//
// In:   {rows: [{q, texts}, …], questions: [{q, texts}, …]}   the texts of some more rows, and of questions new with them
//       {id, query, of}                                       a search; a later one ends it
// Out:  {id, searched, of}     a sign of life, at the start and every 50 ms
//       {id, places}           the places of the rows that match, in their order; or {id, error} of a bad regex
//
// A query is words, all of which must occur ("a phrase" is one word), or /a regex/i. Of each text there is a signature:
// the set of its trigrams, hashed into 8,192 bits. Most texts without a word lack a trigram of it, and are not read.

function searcher() {
  const BITS = 8192;
  const TURN_MS = 50;
  const rows = [];
  const questions = new Map();
  let latest = 0;

  function taken(texts) {
    const lower = texts.join("\n").toLowerCase();
    const signature = new Uint32Array(BITS / 32);
    for (const bit of trigrams(lower)) signature[bit >> 5] |= 1 << (bit & 31);
    return {texts, lower, signature};
  }

  function trigrams(text) {
    const bits = new Uint16Array(Math.max(0, text.length - 2));
    let [a, b] = [text.charCodeAt(0), text.charCodeAt(1)];
    for (let place = 2; place < text.length; place++) {
      const c = text.charCodeAt(place);
      bits[place - 2] = (Math.imul(a, 0x9e3779b1) ^ Math.imul(b, 0x85ebca77) ^ Math.imul(c, 0xc2b2ae3d)) >>> 19;
      [a, b] = [b, c];
    }
    return bits;
  }

  const wanted = (word) => ({word, bits: [...new Set(trigrams(word))]});

  function holds({lower, signature}, {word, bits}) {
    return bits.every((bit) => signature[bit >> 5] & (1 << (bit & 31))) && lower.includes(word);
  }

  // The test of a row. The longest word is the rarest.
  function test(query) {
    const pattern = /^\/(.+)\/([imsu]*)$/s.exec(query.trim());
    const regex = pattern && new RegExp(pattern[1], pattern[2]);
    const words = pattern ? required(...pattern.slice(1)) : [...query.toLowerCase().matchAll(/"([^"]+)"|(\S+)/g)].map((found) => found[1] ?? found[2]);
    const each = words.toSorted((a, b) => b.length - a.length).map(wanted);
    const asked = new Map(); // several rows ask one question
    const ofQuestion = (row) => {
      if (!asked.has(row.q)) asked.set(row.q, each.map((word) => holds(questions.get(row.q), word)));
      return asked.get(row.q);
    };
    const hasWords = (row) => each.every((word, place) => ofQuestion(row)[place] || holds(row, word));
    if (!regex) return hasWords;
    return (row) => hasWords(row) && [...questions.get(row.q).texts, ...row.texts].some((text) => regex.test(text));
  }

  // Pieces of three characters and more that whatever a regex matches must hold, in small letters. Groups and what may
  // be absent are left out; none where it has branches, or where u folds other letters than toLowerCase.
  function required(source, flags) {
    let bare = source.replace(/\\(?:x[\da-f]{2}|u[\da-f]{4}|c[a-z]|\d+|[^])|\[(?:\\[^]|[^\]\\])*\]/gi, "\n");
    for (let before = ""; before !== bare; ) [before, bare] = [bare, bare.replace(/\([^()]*\)/g, "\n")];
    if (bare.includes("|") || flags.includes("u")) return [];
    const runs = bare.replace(/\{[^{}]*\}/g, "?").matchAll(/([a-z\d _,:;='"-]+)([?*]?)/gi);
    return [...runs].map(([, run, absent]) => (absent ? run.slice(0, -1) : run).toLowerCase()).filter((run) => run.length > 2);
  }

  async function search({id, query, of}) {
    const places = [];
    const answer = (message) => postMessage({id, ...message});
    answer({searched: 0, of});
    try {
      const matches = test(query);
      let turn = performance.now();
      for (let place = 0; place < of; place++) {
        if (matches(rows[place])) places.push(place);
        if (performance.now() - turn < TURN_MS) continue;
        answer({searched: place + 1, of});
        await new Promise((resume) => setTimeout(resume)); // a later search is read
        if (latest !== id) return;
        turn = performance.now();
      }
      answer({places});
    } catch (error) {
      answer({error: error.message});
    }
  }

  onmessage = ({data}) => {
    for (const {q, texts} of data.questions ?? []) questions.set(q, taken(texts));
    for (const {q, texts} of data.rows ?? []) rows.push({q, ...taken(texts)});
    if (!data.id) return;
    latest = data.id;
    search(data);
  };
}
