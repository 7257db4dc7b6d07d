"use strict";
// Everything that comes from data reaches the page as text (textContent, value), never as HTML.
const told = JSON.parse(document.getElementById("data").textContent);
const shown = told.shown, total = shown.id.length;
const ROW = 72, SPARE = 6, KEPT_CHUNKS = 60;
const decisions = new Map();  // pixel hash → {decision, label, when}
const notes = new Map();
const past = [];  // for undo: [pixel hash, what was decided before, place in the list]
let view = [], cursor = 0, saved = new Set();

const $ = (id) => document.getElementById(id);
const word = (column, k) => shown[column].words[shown[column].codes[k]] ?? null;
const between = (share, low, high) => `${percent(share)} (${percent(low)} to ${percent(high)})`;
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const count = (number) => number.toLocaleString("en");

function make(tag, properties = {}, ...children) {
  const { attributes = {}, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

// -- pictures: blocks of text, taken apart when they are looked at

const chunks = new Map();

function picture(kind, k, className = "") {
  const block = `${kind}-${Math.floor(k / told.chunk)}`;
  const parts = chunks.get(block) ?? $(block).textContent.split(",");
  chunks.delete(block);
  chunks.set(block, parts);  // the last one used
  if (chunks.size > KEPT_CHUNKS) chunks.delete(chunks.keys().next().value);
  const image = make("img", { className, decoding: "async", alt: "" });
  image.addEventListener("load", () => image.classList.toggle("tiny", image.naturalWidth <= 48));
  image.src = `data:image/webp;base64,${parts[k % told.chunk]}`;
  return image;
}

// -- what was decided

const before = (k) => (shown.decided_by[k] === null ? null
  : { decision: word("action", k), label: word("action", k) === "relabel" ? word("curated_label", k) : null,
      who: shown.decided_by[k] });
const standing = (k) => decisions.get(shown.pixel_hash[k]) ?? before(k);

function accepted(k) {
  const action = word("algorithm_action", k);
  if (action === "keep") return ["keep", null];
  const offered = word("suggested_label", k);
  return ["accept", action === "relabel" && offered !== word("label", k) ? offered : null];
}

function decide(decision, label = null) {
  if (!view.length) return;
  const hash = shown.pixel_hash[view[cursor]];
  past.push([hash, decisions.get(hash), cursor]);
  decisions.set(hash, { decision, label, when: new Date().toISOString() });
  saved.delete(hash);
  move(1);
}

function undo() {
  if (!past.length) return say("nothing to undo");
  const [hash, earlier, place] = past.pop();
  if (earlier) decisions.set(hash, earlier); else decisions.delete(hash);
  saved.delete(hash);
  select(place);
}

const unsaved = () => [...decisions.keys()].filter((hash) => !saved.has(hash));

function rows(hashes) {
  const who = $("who").value.trim(), name = new Map(shown.pixel_hash.map((hash, k) => [hash, shown.id[k]]));
  return hashes.map((hash) => {
    const { decision, label, when } = decisions.get(hash);
    return { pixel_hash: hash, decision, label, who, when, note: notes.get(hash) ?? "", image: name.get(hash) };
  });
}

async function save() {
  if (!decisions.size) return say("nothing is decided yet");
  const hashes = told.served ? unsaved() : [...decisions.keys()];
  if (!hashes.length) return say("everything is saved");
  const text = JSON.stringify({ curation: told.curation, decisions: rows(hashes) }, null, 1);
  if (told.served) {
    try {
      const answer = await fetch("decisions",
        { method: "POST", headers: { "Content-Type": "application/json" }, body: text });
      const words = await answer.text();
      if (!answer.ok) return say(`not saved: ${words}`);
      say(words);
    } catch (error) {
      return say(`not saved, the server does not answer (${error.message}): run \`sava review\` again`);
    }
  } else {
    const stamp = new Date().toISOString().replace(/[:.]/g, "-");
    const link = make("a", { download: `decisions-${stamp}.json` });
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.click();
    URL.revokeObjectURL(link.href);
    const decisions = `${count(hashes.length)} decision${hashes.length === 1 ? "" : "s"}`;
    say(`${decisions} in ${link.download}: put it into the folder decisions/ of the home`);
  }
  hashes.forEach((hash) => saved.add(hash));
  $("save").disabled = !unsaved().length;
}

function say(text) { $("said").textContent = text; }

// -- the list: only the rows that are seen exist

const KINDS = {
  "all images": () => true,
  "not decided": (k) => standing(k) === null,
  "decided": (k) => standing(k) !== null,
  "sample": (k) => shown.sample[k],
  "changed": (k) => shown.news[k] !== "",
};

function filter() {
  const is = KINDS[$("which").value], name = $("by-name").value.toLowerCase(), wanted = [];
  const code = (id, column) => ($(id).selectedIndex < 1 ? null : shown[column].words.indexOf($(id).value));
  const [action, label, shard] = [code("by-action", "algorithm_action"), code("by-label", "label"), code("by-shard", "shard")];
  for (let k = 0; k < total; k++) {
    if ((action === null || shown.algorithm_action.codes[k] === action)
      && (label === null || shown.label.codes[k] === label) && (shard === null || shown.shard.codes[k] === shard)
      && shown.id[k].toLowerCase().includes(name) && is(k)) wanted.push(k);
  }
  view = wanted;
  $("all").style.height = `${view.length * ROW}px`;
  $("count").textContent = `${count(view.length)} of ${count(total)}`;
  $("list").scrollTop = 0;
  select(0);
}

function select(place) {
  cursor = Math.max(0, Math.min(view.length - 1, place));
  const list = $("list"), top = cursor * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  draw();
  drawOne();
  $("save").disabled = !unsaved().length;
}

const move = (steps) => select(cursor + steps);

function draw() {
  const list = $("list"), first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
  const last = Math.min(view.length, first + Math.ceil(list.clientHeight / ROW) + 2 * SPARE);
  $("window").style.transform = `translateY(${first * ROW}px)`;
  $("window").replaceChildren(...view.slice(first, last).map((k, place) => row(k, first + place)));
}

function row(k, place) {
  const label = word("label", k), offered = word("suggested_label", k);
  const made = make("div", { className: "row", id: `row-${place}` }, picture("shown", k), make("div", {},
    make("p", { textContent: label === offered ? label : `${label} → ${offered}` }),
    make("p", { className: "small", textContent: shown.reason[k] || "flagged among the highest" }),
    make("p", { className: "small", textContent: shown.id[k] })), verdict(k));
  made.setAttribute("role", "option");
  made.setAttribute("aria-selected", String(place === cursor));
  made.setAttribute("aria-posinset", String(place + 1));
  made.setAttribute("aria-setsize", String(view.length));
  made.addEventListener("click", () => select(place));
  return made;
}

function inWords(held) { return held.label === null ? held.decision : `${held.decision}: ${held.label}`; }

function verdict(k) {
  const held = standing(k), mine = decisions.has(shown.pixel_hash[k]);
  const extra = [shown.news[k], shown.sample[k] ? "sample" : "", held && !mine ? held.who : ""].filter(Boolean);
  return make("div", { className: "verdict" },
    make("p", { className: mine ? "mine" : "", textContent: held ? inWords(held) : word("algorithm_action", k) }),
    make("p", { className: "small", textContent: extra.join(", ") }));
}

// -- one image

function drawOne() {
  if (!view.length) return $("one").replaceChildren(make("p", { textContent: "No image is like that." }));
  const k = view[cursor], hash = shown.pixel_hash[k], held = standing(k);
  const facts = {
    "image": shown.id[k], "given label": word("label", k), "suggested label": word("suggested_label", k),
    "how sure": percent(shown.confidence[k]), "the algorithm": word("algorithm_action", k), "because": shown.reason[k],
    "p-value": String(shown.p_value[k]), "evidence": `${shown.evidence[k]} nats`, "since last time": shown.news[k],
    "decided": held ? `${inWords(held)}${held.who ? ` (${held.who})` : ""}` : "",
  };
  const list = make("dl");
  for (const [name, value] of Object.entries(facts)) {
    if (value) list.append(make("dt", { textContent: name }), make("dd", { textContent: value }));
  }
  const note = make("input", { id: "note", value: notes.get(hash) ?? "", placeholder: "note (n)", autocomplete: "off" });
  note.addEventListener("input", () => { notes.set(hash, note.value); saved.delete(hash); });
  list.append(make("dt", { textContent: "note" }), make("dd", {}, note));
  const given = word("label", k), offered = word("suggested_label", k);
  $("one").replaceChildren(make("div", { className: "beside" }, picture("shown", k, "large"), list),
    ...neighbours(given, shown.nearest_of_label[k]),
    ...(given === offered ? [] : neighbours(offered, shown.nearest_of_suggested_label[k])));
}

function neighbours(label, places) {
  const figures = places.map((place) => make("figure", {}, picture("reference", place),
    make("figcaption", { textContent: told.references.id[place] })));
  const none = figures.length ? null : make("p", { className: "small", textContent: "the reference set has none" });
  return [make("h2", { textContent: `nearest trusted images of ${label}` }), make("div", {}, ...figures), none]
    .filter(Boolean);
}

// -- the right label

let offers = [], chosen = 0;

function relabel() {
  if (!view.length) return;
  $("wanted").value = "";
  offer();
  $("choice").showModal();
  $("wanted").focus();
}

function offer() {
  const first = word("suggested_label", view[cursor]), typed = $("wanted").value.trim().toLowerCase();
  const names = [first, ...told.classes.filter((name) => name !== first)];
  const fits = names.filter((name) => name.toLowerCase().includes(typed));
  // What begins like it goes before what holds it somewhere.
  offers = [...fits.filter((n) => n.toLowerCase().startsWith(typed)), ...fits.filter((n) => !n.toLowerCase().startsWith(typed))];
  offers = offers.slice(0, 50);
  chosen = 0;
  drawOffers();
}

function drawOffers() {
  $("choices").replaceChildren(...offers.map((name, place) => {
    const made = make("li", { textContent: name });
    made.setAttribute("role", "option");
    made.setAttribute("aria-selected", String(place === chosen));
    made.addEventListener("click", () => choose(place));
    return made;
  }));
  $("choices").children[chosen]?.scrollIntoView({ block: "nearest" });
}

function choose(place) {
  if (offers[place] === undefined) return;
  $("choice").close();
  $("list").focus();
  const label = offers[place];
  if (label === word("label", view[cursor])) decide("keep"); else decide("relabel", label);
}

$("wanted").addEventListener("input", offer);
$("wanted").addEventListener("keydown", (event) => {
  const steps = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (steps) { chosen = Math.max(0, Math.min(offers.length - 1, chosen + steps)); drawOffers(); }
  if (event.key === "Enter") choose(chosen);
  if (steps || event.key === "Enter") event.preventDefault();
});

// -- keys

const page = () => Math.max(1, Math.floor($("list").clientHeight / ROW) - 1);
const KEYS = {
  a: () => view.length && decide(...accepted(view[cursor])), k: () => decide("keep"), d: () => decide("drop"),
  r: relabel, u: undo, s: save, n: () => $("note")?.focus(),
  ArrowDown: () => move(1), ArrowUp: () => move(-1), ArrowRight: () => move(1), ArrowLeft: () => move(-1),
  PageDown: () => move(page()), PageUp: () => move(-page()), Home: () => select(0), End: () => select(view.length - 1),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("choice").open || $("review").hidden) return;
  if (event.target.closest("input, select")) {
    if (event.key === "Escape" || (event.key === "Enter" && event.target.id === "note")) $("list").focus();
    return;
  }
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
window.addEventListener("beforeunload", (event) => { if (unsaved().length) event.preventDefault(); });

// -- the overview

function table(columns, lines, more = 0) {
  const cell = (value) => make("td", { textContent: typeof value === "number" ? count(value) : value,
    className: typeof value === "string" ? "text" : "" });
  const made = make("table", {}, make("thead", {}, make("tr", {}, ...columns.map((name) => make("th", { textContent: name })))),
    make("tbody", {}, ...lines.map((line) => make("tr", {}, ...line.map(cell)))));
  return more ? make("div", {}, made, make("p", { className: "small", textContent: `and ${count(more)} more` })) : made;
}

const section = (title, ...children) => make("section", {}, make("h2", { textContent: title }), ...children);

function drawn(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  return made;
}

function trend(curations) {
  const [wide, high, left, low] = [520, 170, 44, 24], shares = curations.map((each) => each.pruned / each.points);
  const most = Math.max(...shares, 0.01), step = (wide - left - 10) / Math.max(1, shares.length - 1);
  const at = shares.map((share, k) => [left + k * step, high - low - (share / most) * (high - low - 14)]);
  const made = drawn("svg", { viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, role: "img" });
  made.append(drawn("title", {}, "share of the images left out, by curation"),
    drawn("line", { x1: left, y1: high - low, x2: wide, y2: high - low }),
    drawn("text", { x: 0, y: 14 }, percent(most)), drawn("text", { x: 0, y: high - low }, "0 %"),
    drawn("polyline", { points: at.map((place) => place.join(",")).join(" ") }));
  at.forEach(([x, y], k) => {
    made.append(drawn("circle", { cx: x, cy: y, r: 3 }));
    if (k % Math.ceil(at.length / 12) === 0) made.append(drawn("text", { x: x - 3, y: high - 8 }, String(curations[k].number)));
  });
  return made;
}

function overview() {
  const numbers = told.numbers, rate = told.rate, history = told.history;
  const now = { number: history.length ? history.at(-1).number + 1 : 1, points: numbers.points, pruned: numbers.pruned };
  const came = table(["", "images"], [["valued", numbers.points], ["kept", numbers.kept], ["left out", numbers.pruned],
    ["to drop", numbers.to_drop], ["to relabel", numbers.to_relabel], ["to review", numbers.to_review],
    ["decided by people", numbers.decided_by_people ?? 0], ["changed by people", numbers.changed_by_people ?? 0],
    ["contradictions among people", numbers.contradictions ?? 0],
    ["decided, not in the pool", numbers.decisions_not_in_pool ?? 0],
    ...(numbers.copied_images ? [["with copies in the pool", numbers.copied_images],
      ["copies under another label", numbers.copies_under_two_labels], ["copies left out", numbers.copies_left_out]] : []),
    ...(numbers.near_copied_images ? [["with near copies in the pool", numbers.near_copied_images],
      ["near copies under another label", numbers.near_copies_under_two_labels],
      ["near copies left out", numbers.near_copies_left_out]] : []),
    ...Object.entries(numbers.quality ?? {}).map(([kind, n]) => [`flagged, and ${kind} beside the reference`, n]),
    ...Object.entries(numbers.set_aside ?? {}).map(([shard, n]) => [`set aside of ${shard}: also in a clean set`, n])]);
  const rates = table(["", "share"], [["estimated bad", between(numbers.bad_share, numbers.bad_share_low, numbers.bad_share_high)],
    ["false discoveries, nominal", rate.nominal_false_discovery_rate === null ? "a fixed share is cut"
      : percent(rate.nominal_false_discovery_rate)],
    ["false discoveries, realised", rate.sample_decided ? percent(rate.realised_false_discovery_rate) : "not known"],
    ["95 % interval", `${percent(rate.realised_low)} to ${percent(rate.realised_high)}`],
    ["of the sample decided", `${count(rate.sample_decided)} of ${count(rate.sample)}`]]);
  const changed = told.changes === null ? [make("p", { textContent: "This is the first curation." })]
    : [table(["", "images"], Object.entries(told.changes))];
  const by = { probe: "linear probes", accuracy: "whole networks" };
  const proved = Object.entries(told.accuracies).map(([name, sets]) =>
    [by[name], ...sets.map(([mean, std]) => `${percent(mean)} ± ${(100 * std).toFixed(1)}`)]);
  const worth = (each, name) => (`${name}_all` in each ? `${percent(each[`${name}_all`])} → ${percent(each[`${name}_pruned`])}` : "none");
  const older = history.map((each) => [`${each.number}${each.held_back ? " (held back)" : ""}`, new Date(each.time * 1000).toISOString().slice(0, 16).replace("T", " "),
    each.points, each.pruned, each.changes.new, each.changes.gone, each.changes.dropped, each.changes.rescued,
    worth(each, "probe"), worth(each, "accuracy")]);
  const part = { label: "class", shard: "shard" };
  $("overview").append(...(told.held_back ? [make("p", { textContent: `Not published: ${told.held_back}` })] : []), make("div", { className: "sides" },
    section("What came, what was cut", came,
      ...(told.near_copies ? [make("p", { className: "small", textContent: told.near_copies })] : [])), section("How sure", rates), section("Since the last curation", ...changed)),
    section("Test accuracy, by what is trained on", proved.length ? table(["", ...told.trained_on], proved)
      : make("p", { textContent: "It has not been measured on this curation." })),
    section("Share left out, by curation", trend([...history, now]),
      ...(older.length ? [table(["", "when", "images", "left out", "new", "gone", "dropped", "rescued",
        "probes: all → kept", "networks: all → kept"], older)] : [])),
    make("div", { className: "sides" }, ...Object.entries(part).map(([name, title]) => section(`By ${title}`,
      table([title, "images", "estimated bad", "flagged", "left out"],
        told.tables[name].lines.map(([own, n, bad, flagged, out]) => [own, n, between(...bad), flagged, out]), told.tables[name].more))),
    section("Labels that are confused", table(["given", "suggested", "images"], told.tables.confusions.lines, told.tables.confusions.more))));
}

// -- beginning

function choices(id, first, words) {
  $(id).append(...[first, ...words].filter((name) => name !== null).map((name) => make("option", { value: name, textContent: name })));
  $(id).addEventListener("change", () => { filter(); $("list").focus(); });
}

for (const tab of ["review", "overview"]) {
  $(`tab-${tab}`).addEventListener("click", () => {
    for (const other of ["review", "overview"]) {
      $(other).hidden = other !== tab;
      $(`tab-${other}`).setAttribute("aria-selected", String(other === tab));
    }
    if (tab === "review") draw();
  });
}
$("curation").textContent = told.curation;
$("who").value = told.who ?? "";
$("save").addEventListener("click", save);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("by-name").addEventListener("input", filter);
choices("which", null, Object.keys(KINDS));
choices("by-action", "any action", [...shown.algorithm_action.words].sort());
choices("by-label", "any label", [...shown.label.words].sort());
choices("by-shard", "any shard", [...shown.shard.words].sort());
let waiting = false;
$("list").addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
});
window.addEventListener("resize", draw);
overview();
filter();
$("list").focus();
document.documentElement.dataset.ready = "yes";
