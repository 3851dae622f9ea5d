"use strict";
// Without this script the page is a complete list, worst first; with it the list sorts, filters and enlarges.
const byId = (id) => document.getElementById(id);
const list = byId("cards"), search = byId("search"), sort = byId("sort"), dialog = byId("large");
const filters = [...document.querySelectorAll(".filter")];
const cards = [...list.children].map((element) => ({
  element,
  data: element.dataset,
  text: element.querySelector(".what").textContent.concat(" ", element.querySelector(".why")?.textContent ?? "").toLowerCase(),
}));
let visible = cards, current = -1, pictures = [], picture = 0;

function arrange() {
  const key = sort.value.replace("-", ""), sign = sort.value.startsWith("-") ? -1 : 1;
  const last = (card) => card.data[key] === "";
  cards.sort((a, b) => last(a) - last(b) || sign * (Number(a.data[key]) - Number(b.data[key])));
  list.append(...cards.map((card) => card.element));
  narrow();
}

function narrow() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (card) =>
    words.every((word) => card.text.includes(word)) &&
    filters.every((filter) => !filter.value || card.data[filter.dataset.key] === filter.value);
  for (const card of cards) card.element.hidden = !fits(card);
  visible = cards.filter((card) => !card.element.hidden);
  current = -1;
  byId("count").textContent = visible.length === cards.length ? `${cards.length} items` : `${visible.length} of ${cards.length}`;
  byId("nothing").hidden = visible.length > 0;
}

function move(step) {
  if (!visible.length) return;
  const focused = visible.findIndex((card) => card.element.contains(document.activeElement));
  current = Math.min(Math.max((focused < 0 ? current : focused) + step, 0), visible.length - 1);
  const { element } = visible[current];
  element.focus({ preventScroll: true });
  element.scrollIntoView({ block: "start" });
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
  if (!dialog.open) dialog.showModal();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (dialog.open) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) enlarge(pictures, picture + step);
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
  }
}

search.addEventListener("input", narrow);
sort.addEventListener("change", arrange);
for (const filter of filters) filter.addEventListener("change", narrow);
byId("bar").addEventListener("submit", (event) => event.preventDefault());
byId("clear").addEventListener("click", () => { byId("bar").reset(); arrange(); });
list.addEventListener("click", (event) => {
  const figure = event.target.closest(".strip figure");
  if (!figure || !event.target.closest(".shot")) return;
  const figures = [...figure.parentElement.children];
  enlarge(figures, figures.indexOf(figure));
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
document.addEventListener("keydown", onKey);
document.body.classList.add("live");
byId("bar").hidden = false;
arrange();
