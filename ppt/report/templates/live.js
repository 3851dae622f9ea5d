// Where the page is served: marks go to the server as they are made, and clicks on a large picture ask SAM.
const editor = { item: null, touched: false, points: [], masks: [], at: 0, ready: null, asked: 0 };
const SIGNS = { 1: "plus", 0: "minus", "-1": "ignored" };

let saving = 0; // marks that are not yet on the disk

async function post(path, value) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(value) });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

const say = (text) => { byId("answer").textContent = text; };

function begin(item) {
  const [frame] = dialog.children;
  frame.classList.add("asks");
  if (editor.item === item) return editor.touched ? draw() : undefined;
  Object.assign(editor, { item, touched: false, points: [], masks: [], at: 0, asked: editor.asked + 1 });
  say("Click to add a point, with Shift a negative one.");
  // SAM looks at the picture now, so that it is ready when a click comes.
  editor.ready = post("mask", { id: item.id, points: null }).then(
    ({ points }) => { if (editor.item === item) editor.points = points; },
    (error) => say(error.message),
  );
  offer();
}

async function add(event) {
  const svg = event.target.closest(".shot"), { item } = editor;
  if (!svg) return;
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  const { x, y, width, height } = svg.viewBox.baseVal;
  if (at.x < x || at.y < y || at.x > x + width || at.y > y + height) return;
  const negative = event.shiftKey || byId("negative").ariaPressed === "true";
  await editor.ready;
  if (editor.item !== item) return;
  editor.points.push([at.x, at.y, negative ? 0 : 1]);
  await propose();
}

async function propose() {
  const number = ++editor.asked, { item, points } = editor;
  editor.touched = true;
  draw();
  try {
    const { masks } = points.length ? await post("mask", { id: item.id, points }) : { masks: [] };
    if (number !== editor.asked) return; // a later click was faster
    Object.assign(editor, { masks, at: 0 });
    draw();
  } catch (error) {
    say(error.message);
  }
}

function draw() {
  const [frame] = dialog.children, picture = byId(`item-${editor.item.at + 1}`).querySelector(".shot").cloneNode(true);
  const side = 0.035 * Math.max(picture.viewBox.baseVal.width, picture.viewBox.baseVal.height);
  const layer = drawn("g", { class: "edit" }), mask = editor.masks[editor.at];
  if (mask) layer.append(drawn("path", { class: "ground", d: mask.path }), drawn("path", { class: "rim", d: mask.path }));
  for (const [x, y, label] of editor.points)
    layer.append(drawn("use", { href: `#${SIGNS[label]}`, x: x - side / 2, y: y - side / 2, width: side, height: side }));
  picture.append(layer);
  frame.replaceChildren(picture);
  byId("fade").hidden = true;
  offer();
  if (mask) say(`predicted IoU ${mask.predicted_iou.toFixed(2)}, stability ${mask.stability.toFixed(2)}`);
  else say(editor.points.some(([, , label]) => label === 1) ? "…" : "Click to add a positive point.");
}

function offer() {
  byId("accept").hidden = !editor.masks.length;
  byId("other").hidden = editor.masks.length < 2;
}

const edits = {
  negative() { byId("negative").ariaPressed = String(byId("negative").ariaPressed !== "true"); },
  back() { if (editor.points.pop()) { editor.masks = []; propose(); } },
  afresh() { Object.assign(editor, { points: [], masks: [] }); propose(); },
  other() { editor.at = (editor.at + 1) % editor.masks.length; draw(); },
  accept() {
    const { item, points, masks, at } = editor;
    decide(item, "mask", { segmentation: masks[at].segmentation, points });
    dialog.close();
  },
};
const EDIT_KEYS = { n: "negative", Backspace: "back", c: "afresh", o: "other", Enter: "accept" };

function editByKey(event) {
  const name = EDIT_KEYS[event.key];
  if (!name || byId(name).hidden || event.target.matches("input")) return false;
  event.preventDefault(); // Enter would close the dialog by its button
  edits[name]();
  return true;
}

async function startLive() {
  byId("who").value = run.live.who;
  let before = Promise.resolve(); // one after the other: the last line of an item wins
  keep = (row) => {
    saving += 1;
    before = before.catch(() => {}).then(() => post("decide", row)).finally(() => { saving -= 1; });
    return before;
  };
  globalThis.addEventListener("beforeunload", (event) => { if (saving) event.preventDefault(); });
  if (run.live.ask) {
    whenEnlarged = begin;
    inDialog = editByKey;
    dialog.children[0].addEventListener("click", add);
    for (const name of Object.keys(edits)) byId(name).addEventListener("click", () => edits[name]());
    dialog.addEventListener("close", () => { editor.item = null; editor.asked += 1; });
  }
  const lines = await (await fetch("review")).text();
  for (const row of lines.split("\n").filter(Boolean).map((line) => JSON.parse(line)))
    if (!marks.has(row.id)) accept(row); // what was decided meanwhile is newer
  for (const card of list.children) paint(itemOf(card));
  tally();
}
