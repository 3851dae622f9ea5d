// Marks: what a person decides about an item. They outlive the tab, and leave it as review.jsonl.
const KEYS = { y: "keep", x: "drop", f: "flag", u: "none" };
const DECISIONS = ["keep", "drop", "candidate", "flag", "mask", "none"];
const SHELF = "ppt-review/", NAME = "ppt-review-who";
const places = new Map(items.map((item) => [item.id, item]));
const marks = new Map(); // id -> the last decision on it, as a line of review.jsonl
const markOf = (item) => marks.get(item.id)?.decision ?? "none";

const shelf = {
  // A browser may refuse storage to a page from disk, or have no room left.
  read() {
    if (run.live) return; // the server keeps them
    try {
      for (let n = 0; n < localStorage.length; n++) {
        const key = localStorage.key(n);
        if (key.startsWith(SHELF)) accept(JSON.parse(localStorage.getItem(key)));
      }
      byId("who").value = localStorage.getItem(NAME) ?? byId("who").value;
    } catch { tell("This browser keeps nothing of this page: save the review before you close it."); }
  },
  keep(key, value) {
    try { localStorage.setItem(key, value); }
    catch { tell("This browser has no room for more marks: save the review now."); }
  },
};

function tell(text) {
  byId("told").textContent = text;
  byId("told").hidden = !text;
}

const isCount = (value) => Number.isInteger(value) && value >= 0;
const isWhole = (row) =>
  row !== null && typeof row === "object" && places.has(row.id) && DECISIONS.includes(row.decision) &&
  row.of === places.get(row.id).of && (row.candidate === null || isCount(row.candidate)) &&
  (row.decision !== "candidate" || isCount(row.candidate)) &&
  ["note", "who", "when"].every((name) => typeof row[name] === "string");

function accept(row) {
  if (!isWhole(row)) return false;
  marks.set(row.id, row);
  return true;
}

const now = () => new Date().toISOString().replace(/\.\d+Z$/, "Z");

async function decide(item, decision, more = {}) {
  if (decision === "none" && markOf(item) === "none") return;
  const before = marks.get(item.id);
  const row = {
    id: item.id, decision, candidate: null, segmentation: null, points: null,
    note: decision === "none" ? "" : before?.note ?? "", who: byId("who").value.trim(), when: now(), of: item.of, ...more,
  };
  marks.set(item.id, row);
  paint(item);
  tally();
  try {
    await keep(row);
  } catch (error) {
    if (marks.get(item.id) === row && before) marks.set(item.id, before);
    else if (marks.get(item.id) === row) marks.delete(item.id);
    paint(item);
    tally();
    tell(`Not saved: ${error.message}`);
  }
}

let keep = async (row) => shelf.keep(`${SHELF}${row.of}/${row.id}`, JSON.stringify(row));

function markByKey(key, item) {
  if (!run.reviewable) return;
  if (Object.hasOwn(KEYS, key)) decide(item, KEYS[key]);
  else if (/^[1-9]$/.test(key)) pick(item, Number(key) - 1);
  else if (key === "s") takeSegmenters(item);
}

function pick(item, candidate) {
  const there = byId(`item-${item.at + 1}`)?.querySelector(`[data-pick="${candidate}"]`);
  if (there) decide(item, "candidate", { candidate });
}

function takeSegmenters(item) {
  const there = byId(`item-${item.at + 1}`)?.querySelector("[data-take]");
  if (there) decide(item, "mask", { segmentation: JSON.parse(there.dataset.take) });
}

// COCO's compressed RLE: run lengths, down the columns, as differences from the last but one, five bits a letter.
function runsOf(counts) {
  const runs = [];
  for (let at = 0; at < counts.length; ) {
    let length = 0, shift = 0, bits = 32;
    for (; bits & 32; shift += 5) {
      bits = counts.charCodeAt(at++) - 48;
      length |= (bits & 31) << shift;
    }
    if (bits & 16) length |= -1 << shift;
    runs.push(runs.length > 2 ? length + runs.at(-2) : length);
  }
  return runs;
}

// Path data of a mask as stored: a strip for each run within a column.
function pathOf({ size: [height], counts }) {
  let at = 0, path = "";
  for (const [number, run] of runsOf(counts).entries()) {
    const end = at + run;
    while (number % 2 && at < end) {
      const y = at % height, length = Math.min(end - at, height - y);
      path += `M${(at - y) / height - 0.5} ${y - 0.5}v${length}h1v${-length}z`;
      at += length;
    }
    at = end;
  }
  return path;
}

// The mask that a person chose beyond the candidates, last in the card's strip.
function showMask(card, row) {
  card.querySelector("figure.new")?.remove();
  if (row?.decision !== "mask" || typeof row.segmentation?.counts !== "string") return;
  const figure = card.querySelector(".strip figure").cloneNode(true), path = drawn("path", { class: "fill", d: pathOf(row.segmentation) });
  figure.classList.add("new");
  figure.querySelector(".shot").append(path);
  figure.querySelector(".shot").setAttribute("aria-label", "New mask");
  figure.querySelector("b").textContent = "New mask";
  figure.querySelector("dl").remove();
  card.querySelector(".strip").append(figure);
}

function drawn(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function describe(row) {
  if (!row || row.decision === "none") return "";
  const what = { candidate: `candidate ${row.candidate + 1}`, mask: "new mask" }[row.decision] ?? row.decision;
  return row.who ? `${what}, ${row.who}` : what;
}

function paint(item) {
  const card = byId(`item-${item.at + 1}`), row = marks.get(item.id), decision = markOf(item);
  if (!card) return;
  card.dataset.mark = decision;
  for (const button of card.querySelectorAll("[data-mark]"))
    button.ariaPressed = String(button.dataset.mark === decision && decision !== "none");
  for (const button of card.querySelectorAll("[data-pick]"))
    button.ariaPressed = String(decision === "candidate" && Number(button.dataset.pick) === row.candidate);
  for (const button of card.querySelectorAll("[data-take]"))
    button.ariaPressed = String(decision === "mask" && row.segmentation?.counts === JSON.parse(button.dataset.take).counts);
  showMask(card, row);
  const undo = card.querySelector("[data-mark=none]");
  if (decision === "none" && undo === document.activeElement) card.focus();
  undo.hidden = decision === "none";
  card.querySelector(".verdict").textContent = describe(row);
  const note = card.querySelector(".note");
  note.hidden = decision === "none";
  note.value = row?.note ?? "";
}

function tally() {
  const counts = new Map();
  for (const { decision } of marks.values())
    if (decision !== "none") counts.set(decision, (counts.get(decision) ?? 0) + 1);
  const parts = DECISIONS.filter((name) => counts.has(name)).map((name) => `${name} ${counts.get(name)}`);
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
  byId("tally").textContent = [`${total} of ${items.length} marked`, ...parts].join(" · ");
}

function save() {
  const rows = items.filter((item) => marks.has(item.id)).map((item) => JSON.stringify(marks.get(item.id)));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(rows.map((row) => `${row}\n`), { type: "application/jsonl" }));
  link.download = "review.jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function load(file) {
  let taken = 0, refused = 0, foreign = 0;
  for (const line of (await file.text()).split("\n").filter((text) => text.trim())) {
    let row = null;
    try { row = JSON.parse(line); } catch { /* refused below */ }
    if (accept(row)) { taken += 1; await keep(row); }
    else if (row?.of && places.has(row.id) && row.of !== places.get(row.id).of) foreign += 1;
    else refused += 1;
  }
  const parts = [`${taken} decisions read from ${file.name}`];
  if (foreign) parts.push(`${foreign} are about other labels than this run's and were left out`);
  if (refused) parts.push(`${refused} lines are no decision on an item of this run and were left out`);
  tell(`${parts.join("; ")}.`);
  narrow();
  tally();
}

function startReview() {
  list.addEventListener("shown", (event) => paint(itemOf(event.target)));
  list.addEventListener("click", (event) => {
    const button = event.target.closest("[data-mark], [data-pick], [data-take]");
    if (button?.tagName !== "BUTTON") return;
    if (button.dataset.take) takeSegmenters(itemOf(button));
    else if (button.dataset.pick) pick(itemOf(button), Number(button.dataset.pick));
    else decide(itemOf(button), button.dataset.mark);
  });
  list.addEventListener("change", (event) => {
    if (!event.target.matches(".note")) return;
    const item = itemOf(event.target), { decision, candidate, segmentation, points } = marks.get(item.id);
    decide(item, decision, { candidate, segmentation, points, note: event.target.value.trim() });
  });
  byId("review").addEventListener("submit", (event) => event.preventDefault());
  byId("review").hidden = false;
  byId("save").addEventListener("click", save);
  byId("load").addEventListener("change", ({ target }) => {
    if (target.files.length) load(target.files[0]);
    target.value = "";
  });
  byId("who").addEventListener("change", () => shelf.keep(NAME, byId("who").value.trim()));
  globalThis.addEventListener("storage", () => { shelf.read(); for (const card of list.children) paint(itemOf(card)); tally(); });
  shelf.read();
  tally();
}
