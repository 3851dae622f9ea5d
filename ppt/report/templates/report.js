"use strict";
// Without this script the page is a list, worst first; with it the list sorts, filters, enlarges and turns pages.
const byId = (id) => document.getElementById(id);
const list = byId("cards"), search = byId("search"), sort = byId("sort"), dialog = byId("large");
const filters = [...document.querySelectorAll(".filter")];
const run = JSON.parse(byId("run").textContent);
const items = run.items.map((row, at) => {
  const item = { at, element: null };
  run.columns.forEach((name, column) => { item[name] = row[column]; });
  const words = [...item.words, ...item.told.map((number) => run.strings[number])];
  item.text = words.join(" ").toLowerCase();
  item.kinds = item.kinds.map((number) => run.strings[number]);
  return item;
});
for (const element of list.children) items[Number(element.id.slice(5)) - 1].element = element;
const inside = list.children.length;
let order = items, visible = items, page = 0, current = -1, pictures = [], picture = 0;

// Cards beyond those in this file: each sidecar is a script that hands over some of them, as text.
const chunks = new Map(), asked = new Set();
const MOST_CHUNKS = 60;
const chunkOf = (item) => Math.floor((item.at - inside) / run.chunk);

function ask(number) {
  if (asked.has(number)) return;
  asked.add(number);
  const script = document.createElement("script");
  script.src = `${run.files}/items_${String(number + 1).padStart(4, "0")}.js`;
  script.onload = () => { script.remove(); asked.delete(number); };
  script.onerror = () => {
    script.remove();
    byId("lost").textContent = `The files in the folder ${run.files} beside this page cannot be read, so only ${inside} items are shown.`;
    byId("lost").hidden = false;
  };
  document.head.append(script);
}

function receive(edition, number, cards, photos) {
  if (edition !== run.edition) {
    byId("lost").textContent = "The report was made anew since this page was opened: reload it.";
    byId("lost").hidden = false;
    return;
  }
  chunks.set(number, { cards, photos });
  const shown = new Set(onPage().map(chunkOf));
  for (const old of chunks.keys()) if (chunks.size > MOST_CHUNKS && !shown.has(old)) chunks.delete(old);
  if (onPage().every(ready)) show();
}
globalThis.pptItems = receive;

const ready = (item) => item.element || chunks.has(chunkOf(item));
const onPage = () => (run.page ? visible.slice(page * run.page, (page + 1) * run.page) : visible);

function cardOf(item) {
  if (item.element) return item.element;
  const holder = document.createElement("template");
  holder.innerHTML = chunks.get(chunkOf(item)).cards[(item.at - inside) % run.chunk];
  return holder.content.querySelector(".card");
}

const itemOf = (element) => items[Number(element.closest(".card").id.slice(5)) - 1];
// What the served page adds to this one: see live.js.
let whenEnlarged = null, inDialog = null;
let whenShown = null;
function show() {
  const wanted = onPage();
  list.setAttribute("aria-busy", String(!wanted.every(ready)));
  for (const item of wanted) if (!ready(item)) ask(chunkOf(item));
  if (!wanted.every(ready)) return;
  const cards = wanted.map(cardOf), photos = new Map();
  for (const [place, item] of wanted.entries()) {
    if (item.element) continue;
    const id = cards[place].querySelector("use[href^='#photo-']").getAttribute("href").slice(1);
    photos.set(id, chunks.get(chunkOf(item)).photos[id] ?? "");
  }
  byId("beside").innerHTML = [...photos.values()].join(""); // only these: thousands would fill the memory
  list.replaceChildren(...cards);
  for (const card of list.children) card.dispatchEvent(new CustomEvent("shown", { bubbles: true }));
  const pages = run.page ? Math.ceil(visible.length / run.page) : 1;
  byId("pager").hidden = pages < 2;
  byId("page").textContent = `Page ${page + 1} of ${pages}`;
  byId("before").disabled = page === 0;
  byId("after").disabled = page >= pages - 1;
  whenShown?.();
  whenShown = null;
}

function turn(step, then) {
  page += step;
  whenShown = then ?? (() => list.scrollIntoView({ block: "start" }));
  show();
}

function arrange() {
  const key = sort.value.replace("-", ""), sign = sort.value.startsWith("-") ? -1 : 1;
  const last = (item) => item[key] === null;
  order = [...items].sort((a, b) => last(a) - last(b) || sign * (a[key] - b[key]) || a.at - b.at);
  narrow();
}

function fits(item, filter) {
  const { key } = filter.dataset;
  if (key === "mark") return markOf(item) === filter.value;
  return key === "kinds" ? item.kinds.includes(filter.value) : item[key] === filter.value;
}

function narrow() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = filters.filter((filter) => filter.value);
  visible = order.filter(
    (item) => words.every((word) => item.text.includes(word)) && chosen.every((filter) => fits(item, filter)),
  );
  page = 0;
  current = -1;
  byId("count").textContent =
    visible.length === items.length ? `${items.length} items` : `${visible.length} of ${items.length}`;
  byId("nothing").hidden = visible.length > 0;
  show();
}

function focus(position) {
  current = position;
  const card = list.children[current];
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "start" });
}

function move(step) {
  const cards = [...list.children];
  if (!cards.length) return;
  const focused = cards.findIndex((card) => card.contains(document.activeElement));
  const next = (focused < 0 ? current : focused) + step;
  const pager = next < 0 ? byId("before") : byId("after");
  if ((next < 0 || next >= cards.length) && current >= 0 && !byId("pager").hidden && !pager.disabled)
    turn(step, () => focus(step > 0 ? 0 : list.children.length - 1));
  else focus(Math.min(Math.max(next, 0), cards.length - 1));
}

function goTo(hash) {
  const at = Number(/^#item-(\d+)$/.exec(hash)?.[1]) - 1;
  const place = visible.indexOf(items[at]);
  if (!run.page || place < 0) return;
  page = Math.floor(place / run.page);
  whenShown = () => focus(place % run.page);
  show();
}

function enlarge(figures, index) {
  if (!figures.length) return;
  pictures = figures;
  picture = (index + figures.length) % figures.length;
  const [frame, note] = dialog.children;
  const card = figures[picture].closest(".card");
  dialog.style.setProperty("--ratio", card.style.getPropertyValue("--ratio"));
  frame.replaceChildren(figures[picture].querySelector(".shot").cloneNode(true));
  note.textContent = `${figures[picture].querySelector("b").textContent} · ${card.querySelector("h3").textContent}`;
  byId("fade").hidden = !frame.querySelector(".heat");
  if (!dialog.open) dialog.showModal();
  whenEnlarged?.(itemOf(card));
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (dialog.open) {
    if (inDialog?.(event)) return;
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step && event.target.type !== "range") enlarge(pictures, picture + step);
    return;
  }
  if (event.target.matches("input, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "/") { event.preventDefault(); search.focus(); search.select(); }
  else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "Enter" && event.target.matches(".card")) {
    event.preventDefault();
    enlarge([...event.target.querySelectorAll(".strip figure")], 0);
  } else if (event.target.closest(".card")) markByKey(event.key, itemOf(event.target));
}

function start() {
  search.addEventListener("input", narrow);
  sort.addEventListener("change", arrange);
  for (const filter of filters) filter.addEventListener("change", narrow);
  byId("bar").addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", () => { byId("bar").reset(); arrange(); });
  byId("before").addEventListener("click", () => turn(-1));
  byId("after").addEventListener("click", () => turn(1));
  list.addEventListener("click", (event) => {
    const figure = event.target.closest(".strip figure");
    if (!figure || !event.target.closest(".shot")) return;
    const figures = [...figure.parentElement.children];
    enlarge(figures, figures.indexOf(figure));
  });
  byId("opacity").addEventListener("input", ({ target }) =>
    document.documentElement.style.setProperty("--heat", `${target.value}%`));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  document.addEventListener("keydown", onKey);
  globalThis.addEventListener("hashchange", () => goTo(location.hash));
  document.body.classList.add("live");
  byId("bar").hidden = false;
  arrange();
  goTo(location.hash);
}
